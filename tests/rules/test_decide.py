"""What a rule set decides, against cases in words."""

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rules import Decision, Facts, Known, Problems, Route, Rule, RuleSet, load
from rules.interpret import explain
from rules.rule import AllOf, Send, Target
from rules.ruleset import NO_ROUTE, NO_RULE

MODALITY, BODY_PART, IMAGE_TYPE = 0x00080060, 0x00180015, 0x00080008


def _facts(calling: str = "CT1", source: str = "10.1.2.3", **attributes: str) -> Facts:
    tags = {"modality": MODALITY, "body": BODY_PART, "image_type": IMAGE_TYPE}
    values = {tags[name]: tuple(v.split("\\")) if v else () for name, v in attributes.items()}
    return Facts(
        calling,
        "ROUTER",
        source,
        remote="ct-room-1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        attributes=values,
    )


def _decide(text: str, facts: Facts) -> tuple[str, list[str]]:
    decision = load(text).decide(facts)
    return decision.disposition, [route.destination for route in decision.routes]


def _holds(when: str, facts: Facts) -> bool:
    return _decide(f"[{{when: {when}, to: a}}]", facts)[0] == "route"


@pytest.mark.parametrize(
    ("when", "facts", "expected"),
    [
        ("{Modality: CT}", _facts(modality="CT"), True),
        ("{Modality: CT}", _facts(modality="ct"), False),
        ("{Modality: [CT, MR]}", _facts(modality="MR"), True),
        ("{Modality: CT}", _facts(), False),
        ("{not: {Modality: CT}}", _facts(), True),
        ("{not: {Modality: CT}}", _facts(modality=""), True),
        ("{Modality: '*'}", _facts(modality=""), False),
        ("{Modality: '*'}", _facts(modality="CT"), True),
        ("{not: {Modality: [SR, KO]}}", _facts(modality="KO"), False),
        ("{'(0008,0060)': 'C?'}", _facts(modality="CT"), True),
        ("{ImageType: PRIMARY}", _facts(image_type="ORIGINAL\\PRIMARY"), True),
        ("{not: {ImageType: PRIMARY}}", _facts(image_type="ORIGINAL\\PRIMARY"), False),
        (
            "{all: [{ImageType: PRIMARY}, {ImageType: AXIAL}]}",
            _facts(image_type="ORIGINAL\\PRIMARY"),
            False,
        ),
        (
            "{all: [{ImageType: PRIMARY}, {ImageType: ORIGINAL}]}",
            _facts(image_type="ORIGINAL\\PRIMARY"),
            True,
        ),
        ("{any: [{Modality: MR}, {calling_ae: 'CT*'}]}", _facts(modality="CT"), True),
        (
            "{not: {Modality: CT, BodyPartExamined: HEAD}}",
            _facts(modality="CT", body="HEAD"),
            False,
        ),
        ("{not: {Modality: CT, BodyPartExamined: HEAD}}", _facts(modality="CT", body="KNEE"), True),
        ("{not: {any: [{Modality: MR}, {BodyPartExamined: HEAD}]}}", _facts(modality="CT"), True),
        ("{not: {not: {Modality: CT}}}", _facts(modality="CT"), True),
        ("{calling_ae: CT1}", _facts(calling=" CT1 "), True),
        ("{calling_ae: CT1}", _facts(calling="CT11"), False),
        ("{called_ae: ROUTER}", _facts(), True),
        ("{remote: 'ct-*'}", _facts(), True),
        ("{source: 10.1.0.0/16}", _facts(), True),
        ("{source: 10.1.2.3}", _facts(source="::ffff:10.1.2.3"), True),
        ("{source: [10.2.0.0/16, 'fd00::/8']}", _facts(source="fd00::7"), True),
        ("{source: 10.1.0.0/16}", _facts(source="nonsense"), False),
        ("{sop_class: CTImageStorage}", _facts(), True),
        ("{sop_class: '*CTImageStorage'}", _facts(), True),
        ("{sop_class: 1.2.840.10008.5.1.4.1.1.4}", _facts(), False),
        ("{sop_class: '1.2.840.10008.5.*'}", _facts(), True),
        ("{transfer_syntax: explicit-vr-le}", _facts(), True),
        ("{transfer_syntax: [jpeg-2000, JPEGLSLossless]}", _facts(), False),
    ],
)
def test_conditions(when: str, facts: Facts, expected: bool) -> None:
    assert _holds(when, facts) is expected


def test_every_matching_rule_adds_its_routes_until_one_is_final() -> None:
    text = """
    - {name: one, to: a}
    - {name: other, when: {Modality: MR}, to: x}
    - {name: two, to: [b, a], final: true}
    - {name: three, to: c}
    """
    rules = load(text)
    assert rules.decide(_facts(modality="CT")) == Decision(
        "route", (Route("a", "one"), Route("b", "two")), "", rules.version
    )
    assert rules.tags == {MODALITY}
    assert rules.destinations == {"a", "b", "c", "x"}


def test_what_nothing_matches_is_held() -> None:
    for rules in (load(None), load("[]"), load("[{when: {Modality: MR}, to: a}]")):
        assert rules.decide(_facts(modality="CT")) == Decision("hold", (), NO_RULE, rules.version)


def test_a_discard_ends_the_matter_unless_something_was_routed() -> None:
    discard = "{name: junk, when: {Modality: SR}, discard: not wanted}"
    rules = load(f"[{discard}, {{to: a}}]")
    assert rules.decide(_facts(modality="SR")) == Decision(
        "discard", (), "rule 'junk': not wanted", rules.version
    )
    assert _decide(f"[{discard}, {{to: a}}]", _facts(modality="CT")) == ("route", ["a"])
    # Later rules are still asked: once it is kept, what else would be sent is sent.
    assert _decide(f"[{{to: a}}, {discard}, {{to: b}}]", _facts(modality="SR")) == (
        "route",
        ["a", "b"],
    )


def test_a_bare_discard_is_named_by_its_rule() -> None:
    assert load("[{discard: yes}]").decide(_facts()).reason == "rule 'rule 1'"


def test_final_stops_even_where_a_discard_came_too_late() -> None:
    text = "[{to: a}, {discard: true, final: true}, {to: b}]"
    assert _decide(text, _facts()) == ("route", ["a"])


def test_the_version_follows_the_meaning_alone() -> None:
    base = load("[{name: x, when: {Modality: [CT, MR], calling_ae: A}, to: a}]").version
    same = "- name: 'x'   # why\n  when: {calling_ae: A, 00080060: [MR, CT]}\n  to: [a]\n"
    assert load(same).version == base
    assert re.fullmatch("[0-9a-f]{12}", base)
    others = [
        "[{name: x, when: {Modality: [CT, MR], calling_ae: A}, to: b}]",
        "[{name: x, when: {Modality: [CT, MR], calling_ae: A}, to: a, final: true}]",
        "[{name: x, when: {Modality: [CT, 'MR*'], calling_ae: A}, to: a}]",
        "[{name: x, when: {not: {Modality: [CT, MR]}, calling_ae: A}, to: a}]",
        "[{name: y, when: {Modality: [CT, MR], calling_ae: A}, to: a}]",
    ]
    assert len({load(text).version for text in others} | {base}) == 6


def test_known_remotes_are_checked_only_when_they_are_told() -> None:
    assert load("[{to: a}]").destinations == {"a"}
    with pytest.raises(Problems, match="no remote is called 'a'"):
        load("[{to: a}]", known=Known((), ()))


# What follows goes beyond the one rule: labels, holds, times, members, lists.


def _explained(text: str, facts: Facts, **options: object) -> Decision:
    """The decision of both ways of deciding, which must be one."""
    rules = load(text, **options)  # type: ignore[arg-type]
    decision = rules.decide(facts)
    assert explain(rules, facts).decision == decision
    return decision


def test_labels_of_earlier_rules_count_for_later_ones() -> None:
    text = """
    - {name: other, when: {Modality: XX}, tag: [night, x]}
    - {name: before, when: {tag: night}, to: too-early}
    - {name: label, when: {Modality: CT}, tag: [night, ct]}
    - {name: after, when: {tag: night}, to: teleread}
    - {name: none, when: {not: {tag: "n*"}}, to: day}
    - {name: again, when: {tag: {not: [x, 'x*']}}, tag: ct, to: pacs}
    """
    decision = _explained(text, _facts(modality="CT"))
    assert [route.destination for route in decision.routes] == ["teleread", "pacs"]
    assert decision.tags == ("night", "ct")
    other = _explained(text, _facts(modality="MR"))
    assert [route.destination for route in other.routes] == ["day", "pacs"]
    assert other.tags == ("ct",)


def test_what_is_only_labelled_is_held_and_says_so() -> None:
    decision = _explained("[{tag: seen}]", _facts())
    assert (decision.disposition, decision.reason) == ("hold", NO_ROUTE)
    assert decision.tags == ("seen",)


def test_a_hold_ends_the_matter_unless_something_was_routed() -> None:
    hold = "{name: ask, when: {Modality: SR}, hold: ask the ward, tag: asked}"
    held = _explained(f"[{hold}, {{to: a}}]", _facts(modality="SR"))
    assert (held.disposition, held.reason) == ("hold", "rule 'ask': ask the ward")
    assert held.tags == ("asked",)
    routed = _explained(f"[{{to: a}}, {hold}, {{to: b}}]", _facts(modality="SR"))
    assert [route.destination for route in routed.routes] == ["a", "b"]
    assert routed.tags == ("asked",)


def test_a_disabled_rule_does_nothing_and_needs_no_attribute() -> None:
    text = "[{name: x, when: {Modality: CT}, to: a, disabled: waiting for the VPN}, {to: b}]"
    decision = _explained(text, _facts(modality="CT"))
    assert [route.destination for route in decision.routes] == ["b"]
    assert load(text).tags == frozenset()


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 10, 31, 22, 59, 59, tzinfo=UTC), ["b"]),
        (datetime(2026, 10, 31, 23, 0, tzinfo=UTC), ["a", "b"]),
        (datetime(2026, 12, 31, 22, 59, 59, 999_000, tzinfo=UTC), ["a", "b"]),
        (datetime(2026, 12, 31, 23, 0, tzinfo=UTC), ["b"]),
    ],
)
def test_a_rule_is_valid_from_a_day_and_until_another(
    moment: datetime, expected: list[str]
) -> None:
    text = "[{to: a, valid: {from: 2026-11-01, until: 2027-01-01}}, {to: b}]"
    facts = replace(_facts(), received_at=moment.timestamp())
    decision = _explained(text, facts, zone="Europe/Stockholm")
    assert [route.destination for route in decision.routes] == expected


@pytest.mark.parametrize(
    ("when", "moment", "expected"),
    [
        ("18:00-07:00", datetime(2026, 11, 21, 16, 59, tzinfo=UTC), False),
        ("18:00-07:00", datetime(2026, 11, 21, 17, 0, tzinfo=UTC), True),
        ("18:00-07:00", datetime(2026, 11, 22, 5, 59, 59, tzinfo=UTC), True),
        ("18:00-07:00", datetime(2026, 11, 22, 6, 0, tzinfo=UTC), False),
        ("sat-sun 00:00-24:00", datetime(2026, 11, 20, 23, 0, tzinfo=UTC), True),
        ("[sun 10:00-11:00, sat 10:00-11:00]", datetime(2026, 11, 21, 9, 30, tzinfo=UTC), True),
        ("[sun 10:00-11:00, mon 10:00-11:00]", datetime(2026, 11, 21, 9, 30, tzinfo=UTC), False),
    ],
)
def test_windows_are_those_of_the_time_zone(when: str, moment: datetime, expected: bool) -> None:
    facts = replace(_facts(), received_at=moment.timestamp())
    for text in (f"{{received: {when}}}", f"{{any: [{{received: {when}}}, {{Modality: XX}}]}}"):
        rules = f"[{{when: {text}, to: a}}]"
        decision = _explained(rules, facts, zone="Europe/Stockholm")
        assert (decision.disposition == "route") is expected


def test_two_windows_of_one_rule_must_both_be_open() -> None:
    rules = "[{when: {received: 18:00-20:00, all: [{received: 19:00-21:00}]}, to: a}]"
    for hour, disposition in ((18, "hold"), (19, "route"), (20, "hold")):
        moment = datetime(2026, 11, 21, hour, 30, tzinfo=UTC).timestamp()
        assert _explained(rules, replace(_facts(), received_at=moment)).disposition == disposition


def test_the_minute_that_is_remembered_is_not_taken_for_another() -> None:
    rules = load("[{when: {received: 18:00-07:00}, to: a}]")
    night = datetime(2026, 11, 21, 20, 0, tzinfo=UTC).timestamp()
    day = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
    for moment, disposition in (
        (-60.0, "route"),
        (night, "route"),
        (day, "hold"),
        (night, "route"),
    ):
        assert rules.decide(replace(_facts(), received_at=moment)).disposition == disposition


def test_days_are_reckoned_from_the_day_of_reception() -> None:
    text = "[{when: {StudyDate: '>= today-7d'}, to: a}]"
    rules = load(text, zone="Europe/Stockholm")
    late = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)  # the 21st in Stockholm
    for moment, first in ((late, "20261114"), (late.replace(hour=22), "20261113")):
        for study, expected in ((first, "route"), (str(int(first) - 1), "hold")):
            facts = Facts(
                "A",
                "R",
                "10.0.0.1",
                attributes={0x00080020: (study,)},
                received_at=moment.timestamp(),
            )
            assert rules.decide(facts).disposition == expected
            assert explain(rules, facts).decision.disposition == expected


BALANCE = "[{name: r, to: {balance: [a, b, c], by: BY, weights: [2, 1, 1]}}]"


def _of(study: str, patient: str = "P", instance: str = "1.2", issuer: str = "") -> Facts:
    attributes = {0x0020000D: (study,), 0x00100020: (patient,), 0x00080018: (instance,)}
    if issuer:
        attributes[0x00100021] = (issuer,)
    return Facts("A", "R", "10.0.0.1", attributes=attributes)  # type: ignore[arg-type]


def test_a_study_is_drawn_once_and_in_proportion() -> None:
    rules = load(BALANCE.replace("BY", "study"))
    assert rules.tags == {0x0020000D}
    drawn = Counter(rules.decide(_of(f"1.2.{n}")).routes[0].destination for n in range(2000))
    assert 880 < drawn["a"] < 1120
    assert 400 < drawn["b"] < 600
    (route,) = rules.decide(_of("1.2.3")).routes
    assert sorted(route.members) == ["a", "b", "c"]
    assert route.members[0] == route.destination
    assert rules.decide(_of("1.2.3", "Q", "1.9")).routes == (route,)


def test_the_draw_is_the_same_for_ever() -> None:
    """Else an upgrade would spread studies over two destinations."""
    rules = load(BALANCE.replace("BY", "study"))
    orders = ["".join(rules.decide(_of(f"1.2.{n}")).routes[0].members) for n in range(6)]
    assert orders == ["bac", "acb", "cab", "acb", "bca", "cab"]


def test_a_patient_is_drawn_with_the_issuer() -> None:
    rules = load(BALANCE.replace("BY", "patient"))
    assert rules.tags == {0x00100020, 0x00100021}
    by_issuer = {rules.decide(_of("1", "17", issuer=f"H{n}")).routes[0].members for n in range(40)}
    assert len(by_issuer) > 1
    assert len({rules.decide(_of(f"1.{n}", "17")).routes[0].members for n in range(40)}) == 1


def test_instances_are_drawn_one_by_one() -> None:
    rules = load(BALANCE.replace("BY", "instance"))
    assert rules.tags == {0x00080018}
    drawn = {rules.decide(_of("1", instance=f"1.{n}")).routes[0].destination for n in range(40)}
    assert drawn == {"a", "b", "c"}


def test_a_member_that_leaves_moves_only_its_own() -> None:
    every = load("[{to: {balance: [a, b, c]}}]")
    fewer = load("[{to: {balance: [a, b]}}]")
    for number in range(300):
        facts = _of(f"1.2.{number}")
        (before,), (after,) = every.decide(facts).routes, fewer.decide(facts).routes
        if before.destination != "c":
            assert after.destination == before.destination
        else:
            assert after.destination == before.members[1]


def test_the_first_rule_that_names_a_destination_gives_its_options() -> None:
    text = """
    - {name: urgent, to: a, send: {priority: urgent}}
    - {name: more, to: {failover: [a, b]}, send: {after: study-complete}}
    - {name: rest, to: {failover: [b, a]}, send: {after: study-complete}}
    """
    first, second = _explained(text, _facts()).routes
    assert first == Route("a", "urgent", 20, "one", (), Send(priority=20))
    assert (second.destination, second.rule, second.members) == ("b", "rest", ("b", "a"))
    assert second.send.after == "study-complete"


def test_lists_may_change_under_the_same_rules() -> None:
    known = Known((), ("a",), lists={"trial": frozenset({"17", "Doe^J"})}, folded=("trial",))
    text = "[{when: {any: [{PatientID: {in: trial}}, {PatientName: {in: trial}}]}, to: a}]"
    rules = load(text, known=replace(known, remotes=("a",)))
    assert rules.list_names == {"trial"}
    assert rules.decide(_of("1", "17")).disposition == "route"
    assert rules.decide(_of("1", "18")).disposition == "hold"
    other = rules.with_lists({"trial": frozenset({"18"})})
    assert other.version == rules.version
    assert (other.zone, other.rules) == (rules.zone, rules.rules)
    assert rules.decide(_of("1", "17")).disposition == "route"
    assert other.decide(_of("1", "17")).disposition == "hold"
    assert other.decide(_of("1", "18")).disposition == "route"
    assert rules.with_lists({}).decide(_of("1", "17")).disposition == "hold"


def test_versions_follow_every_part_of_a_rule() -> None:
    base = Rule("x", AllOf(), (Target("failover", ("a", "b")),))
    others = [
        replace(base, targets=(Target("failover", ("b", "a")),)),
        replace(base, targets=(Target("first_available", ("a", "b")),)),
        replace(base, targets=(Target("balance", ("a", "b")),)),
        replace(base, targets=(Target("balance", ("a", "b"), "patient"),)),
        replace(base, targets=(Target("balance", ("a", "b"), "study", (1, 2)),)),
        replace(base, send=Send(priority=1)),
        replace(base, tags=("t",)),
        replace(base, disabled="why"),
        replace(base, valid_from=datetime(2026, 1, 1, tzinfo=UTC)),
        replace(base, until=datetime(2026, 1, 1, tzinfo=UTC)),
        replace(base, targets=(), hold=""),
        replace(base, targets=(), discard=""),
    ]
    assert len({RuleSet([rule]).version for rule in (base, *others)}) == len(others) + 1
    moved = replace(base, file="elsewhere.yaml", line=9)
    assert RuleSet([moved]).version == RuleSet([base]).version


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("{SeriesNumber: 3}", "{SeriesNumber: '3.0'}", True),
        ("{SeriesNumber: 3}", "{SeriesNumber: 4}", False),
        ("{SeriesNumber: 3..5}", "{SeriesNumber: {between: [3, 5]}}", True),
        ("{SeriesNumber: '> 3'}", "{SeriesNumber: '>= 3'}", False),
        ("{PatientName: Doe^John}", "{PatientName: DOE^JOHN^^}", True),
        ("{PatientName: Doe^John}", "{PatientName: Doe^J}", False),
        ("{StudyDate: today}", "{StudyDate: today-1d}", False),
        ("{StudyDate: today-7d}", "{StudyDate: today-1w}", True),
        ("{Modality: '/CT/'}", "{Modality: '/CT/i'}", False),
        ("{Modality: {starts: C}}", "{Modality: {ends: C}}", False),
        ("{Modality: CT}", "{Modality: {equals: CT, ignore_case: true}}", False),
        ("{ImageType: A}", "{'ImageType[1]': A}", False),
        ("{PatientName: {starts: A}}", "{PatientName: {ends: A}}", False),
        ("{PatientName: {starts: A}}", "{PatientName: {contains: A}}", False),
        ("{StudyDate: ['> today', 3000-01-01]}", "{StudyDate: [3000-01-01, '> today']}", True),
    ],
)
def test_versions_follow_the_meaning_of_conditions(one: str, other: str, same: bool) -> None:
    versions = {load(f"[{{name: x, when: {when}, to: a}}]").version for when in (one, other)}
    assert (len(versions) == 1) is same


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("when: {StudyDate: today}", True),
        ("when: {not: {any: [{StudyDate: '< today-7d'}]}}", True),
        ("when: {AcquisitionDateTime: '>= 2026-01-01T08:00'}", True),
        ("when: {AcquisitionDateTime: {same_as: FrameAcquisitionDateTime}}", True),
        ("when: {AcquisitionDateTime: {in: trial}}", True),
        ("when: {received: '18:00-07:00'}", True),
        ("valid: {from: 2026-11-01}", True),
        ("when: {StudyDate: 2026-01-01}", False),
        ("when: {Modality: CT}", False),
    ],
)
def test_the_version_follows_the_time_zone_where_the_meaning_does(rule: str, other: bool) -> None:
    known = Known(("a",), ("a",), lists={"trial": frozenset({"20260101"})})
    text = f"[{{name: x, {rule}, to: a}}]"
    zones = ("UTC", "Europe/Stockholm")
    versions = {load(text, known=known, zone=zone).version for zone in zones}
    assert (len(versions) == 2) is other
