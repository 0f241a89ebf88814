"""Files of cases: what is wrong with them is told with its place and its fix; and the verdicts."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rules.attributes import Attribute, Private
from rules.decision import Decision, Facts, Route
from rules.pattern import Bound, Exact, Interval, Today
from rules.rule import AllOf, Match, Not, Received, Rule, Send, Target
from rules.source import Problems, parse
from rules.testcases import Case, Names, parse_cases, rules_file, timed
from rules.verdict import concerns, judge, words
from rules.window import parse_windows

MODALITY = 0x00080060
RULES = (
    Rule(
        "ct", AllOf((Match(Attribute((MODALITY,)), (Exact("CT"),)),)), (Target("one", ("pacs",)),)
    ),
    Rule("label", tags=("night",)),
)
NAMES = Names(
    destinations=("pacs", "teleread", "archive-a", "archive-b"),
    remotes=("pacs", "teleread", "archive-a", "archive-b", "ct-1"),
    schedules=("after-hours",),
    rules=RULES,
    zone="Europe/Stockholm",
    called_ae="ROUTER",
    identify=lambda calling_ae, source: "ct-1" if calling_ae == "CT1" else "",
)


def cases(text: str, under: Names = NAMES) -> tuple[Case, ...]:
    return parse_cases(parse(text, "cases.yaml"), under)


def one(given: str = "{}", expect: str = "{to: pacs}", under: Names = NAMES) -> Case:
    (case,) = cases(f"cases:\n  - {{name: a, given: {given}, expect: {expect}}}\n", under)
    return case


MISTAKES = [
    # a file
    ("text", "1:1: 'cases' needs a list, not 'text'; begin each with"),
    ("{rules: a.yaml}", "1:1: there are no cases; cases: [{"),
    ("cases: []", "1:8: 'cases' needs a list, not an empty list"),
    ("{case: [{name: a}]}", "1:2: unknown key 'case' in a file of cases; did you mean 'cases'?"),
    ("{rules: [a], cases: [{name: a, expect: {to: pacs}}]}", "1:9: 'rules' is the name of a file"),
    ("cases: [text]", "1:9: case 1 must be a mapping, not 'text'"),
    ("cases: [{expect: {to: pacs}}]", "1:9: case 1 has no name"),
    ("cases: [{name: '', expect: {to: pacs}}]", "1:16: case 1 has no name"),
    ("cases: [{name: a}]", "1:16: case 'a' expects nothing; expect: {to: [NAME]}"),
    (
        "cases:\n- {name: a, expect: {to: pacs}}\n- {name: a, expect: {to: pacs}}",
        "3:10: duplicate case 'a'; line 2 has it",
    ),
    (
        "cases: [{name: a, expects: {to: pacs}}]",
        "1:19: unknown key 'expects' in case 'a'; did you mean 'expect'?",
    ),
    # what is given
    (
        "cases: [{name: a, given: CT, expect: {to: pacs}}]",
        "1:26: 'given' needs a mapping, not 'CT'",
    ),
    ("given: {Modalty: CT}", "1:9: unknown attribute 'Modalty'; did you mean 'Modality'?"),
    ("given: {caling_ae: CT}", "1:9: unknown attribute 'caling_ae'; did you mean 'calling_ae'?"),
    ("given: {calling_ae: [A, B]}", "1:21: calling_ae has one value, not a list"),
    ("given: {calling_ae: }", "1:20: calling_ae has one value, not nothing"),
    ("given: {calling_ae: SEVENTEENLETTERSS}", "1:21: 'SEVENTEENLETTERSS' is no AE title"),
    ("given: {source: 10.1.0.0/16}", "1:17: source is one address, not '10.1.0.0/16'; such as"),
    ("given: {remote: ct1}", "1:17: no remote is called 'ct1'; did you mean 'ct-1'?"),
    (
        "given: {sop_class: CTImageStorrage}",
        "1:20: 'CTImageStorrage' is not the name of one SOP class; did you mean 'CTImageStorage'?",
    ),
    ("given: {sop_class: CT*}", "1:20: 'CT*' is not the name of one SOP class"),
    (
        "given: {transfer_syntax: jpeg-ls-loss}",
        "is not the name of one transfer syntax; did you mean 'JPEGLSLossless'?",
    ),
    ("given: {received: tonight}", "1:19: received is a time, not 'tonight'; as in 2026-11-21T"),
    ("given: {received: 2026-11-21}", "1:19: received is a time, not '2026-11-21'"),
    ("given: {received: 2026-13-41T02:00}", "1:19: received is a time"),
    ("given: {tag: night}", "1:9: 'tag' cannot be given: rules give labels; expect: {tag"),
    (
        'given: {"ImageType[3]": LOCALIZER}',
        "1:9: 'ImageType[3]' names one value of several; give all values: ImageType: [ONE",
    ),
    (
        "given: {BurnedInAnnotation: yes}",
        "1:29: no data set has 'yes': a code has only A-Z, 0-9, space and _; write YES",
    ),
    ("given: {PixelData: x}", "1:9: PixelData (7FE0,0010) has no text to compare"),
    ("given: {Modality: {a: b}}", "1:19: an attribute has a value or a list of values"),
    ("given: {StudyDate: today}", "1:20: 'today' is not the value of a date; write the date"),
    (
        r"given: {ImageType: ORIGINAL\PRIMARY}",
        r"1:20: 'ORIGINAL\PRIMARY' has a backslash; several values are a list",
    ),
    # what is expected
    ("expect: pacs", "1:9: 'expect' needs a mapping, not 'pacs'; expect: {to: [NAME]}"),
    ("expect: {}", "1:9: 'expect' needs a mapping, not an empty mapping"),
    ("expect: {too: pacs}", "1:10: unknown key 'too' in expect; did you mean 'to'?"),
    ("expect: {to: pac}", "1:14: no destination is called 'pac'; did you mean 'pacs'?"),
    ("expect: {to: ct-1}", "1:14: no destination is called 'ct-1'; there are: archive-a"),
    ("expect: {to: }", "1:13: a destination is a name, not nothing"),
    ("expect: {to: [pacs, pacs]}", "1:21: pacs stands here twice; leave one out"),
    ("expect: {to: {failover: [archiv-a]}}", "did you mean 'archive-a'?"),
    (
        "expect: {to: {failovr: [archive-a]}}",
        "unknown key 'failovr' in a group of destinations; did",
    ),
    ("expect: {to: {}}", "1:14: a group is one of failover, first_available, balance"),
    ("expect: {not_to: []}", "1:18: 'not_to' is empty; leave it out"),
    ("expect: {to: pacs, not_to: pacs}", "1:20: pacs is in 'to' and in 'not_to'"),
    ("expect: {hold: [a]}", "1:16: hold is true, false or a part of the reason, not a list"),
    ("expect: {hold: true, to: pacs}", "1:22: what 'hold' expects excludes this one"),
    ("expect: {discard: true, priority: high}", "1:25: what 'discard' expects excludes this one"),
    ("expect: {hold: true, discard: true}", "1:22: what 'hold' expects excludes this one"),
    ("expect: {discard: true, keep: 30d}", "1:25: what 'discard' expects excludes this one; what"),
    ("expect: {keep: long}", "1:16: keep must be a duration, not 'long'; write it as"),
    ("expect: {keep: study}", "1:16: keep must be a duration, not 'study'; write it as 30d; 'keep"),
    ("expect: {keep: [30d]}", "1:16: keep must be a duration, not a list"),
    ("expect: {keep: 0s}", "1:16: keep must be from 1s to 3650d, not '0s'"),
    ("expect: {keeps: 30d}", "1:10: unknown key 'keeps' in expect; did you mean 'keep'?"),
    ("expect: {tag: nigth}", "1:15: no label is called 'nigth'; did you mean 'night'?"),
    ("expect: {tag: []}", "1:15: 'tag' is empty; leave it out"),
    ("expect: {priority: hihg}", "1:20: priority cannot be 'hihg'; did you mean 'high'?"),
    ("expect: {after: study}", "1:17: after cannot be 'study'; "),
    ("expect: {schedule: night}", "1:20: no schedule is called 'night'; there are: after-hours"),
    ("expect: {after: {pac: at-once}}", "1:18: no destination is called 'pac'; did you mean"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_its_fix(text: str, message: str) -> None:
    if text.startswith("given"):
        text = f"{text}\ncases: [{{name: a, expect: {{to: pacs}}}}]"
    elif text.startswith("expect"):
        # In a line of its own, so that columns count from where the table has them.
        text = f"- name: a\n  {text}"
        message = re.sub(r"^1:(\d+):", lambda m: f"2:{int(m[1]) + 2}:", message)
    with pytest.raises(Problems) as caught:
        cases(text)
    told = [str(problem) for problem in caught.value.problems]
    assert len(told) == 1, told
    assert message in told[0]


def test_all_mistakes_of_a_file_at_once() -> None:
    with pytest.raises(Problems) as caught:
        cases(
            "cases:\n"
            "- {name: a, given: {Modalty: CT}, expect: {to: pac}}\n"
            "- {name: b, given: {source: x}, expect: {tag: x}}\n"
        )
    assert [(p.line, p.column) for p in caught.value.problems] == [
        (2, 21),
        (2, 48),
        (3, 29),
        (3, 47),
    ]


def test_a_case_that_does_not_say_when_is_refused_where_that_matters() -> None:
    night = parse_windows(["18:00-07:00"], "UTC")
    since = Interval("date", Bound(Today(days=-7), included=True), None)
    study_date = Attribute((0x00080020,))
    ever = Rule("ever", targets=(Target("one", ("pacs",)),))
    for rule in (
        Rule("when", AllOf((Not(Received(night)),))),
        Rule("when", AllOf((Match(study_date, (since,)),))),
        Rule("when", valid_from=datetime(2026, 1, 1, tzinfo=UTC)),
        Rule("when", until=datetime(2026, 1, 1, tzinfo=UTC)),
    ):
        assert timed((ever, rule)) is rule
        under = Names(NAMES.destinations, NAMES.remotes, (), (ever, rule))
        with pytest.raises(Problems, match=r"1:10: case 'a' does not say when, but rule 'when'"):
            cases("- {name: a, expect: {to: pacs}}", under)
        assert cases("- {name: a, given: {received: 2026-11-21T02:00}, expect: {to: pacs}}", under)
        assert cases(
            "{given: {received: 2026-11-21T02:00}, cases: [{name: a, expect: {to: pacs}}]}", under
        )
    fixed = Interval("date", Bound(738000, included=True), None)
    assert timed((ever, Rule("fixed", AllOf((Match(study_date, (fixed,)),))))) is None
    assert timed((Rule("off", AllOf((Received(night),)), disabled="why"),)) is None


def test_what_is_given_becomes_facts() -> None:
    case = one(
        "{calling_ae: CT1, source: 10.0.0.7, sop_class: CTImageStorage,"
        " transfer_syntax: jpeg-ls-lossless, received: 2026-07-01T02:00,"
        " ImageType: [ORIGINAL, PRIMARY], PatientAge: , '(0008,0060)': CT,"
        " '(0019,\"GEMS_ACQU_01\",10)': '5',"
        " RequestAttributesSequence.ScheduledProtocolCodeSequence.CodeValue: X}"
    )
    assert case.facts == Facts(
        calling_ae="CT1",
        called_ae="ROUTER",
        source_address="10.0.0.7",
        remote="ct-1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.4.80",
        attributes={
            0x00080008: ("ORIGINAL", "PRIMARY"),
            0x00101010: (),
            MODALITY: ("CT",),
            Private(0x0019, "GEMS_ACQU_01", 0x10): ("5",),
            (0x00400275, 0x00400008, 0x00080100): ("X",),
            (0x00400275, 0x00400008): (),
            0x00400275: (),
            0x00080016: ("1.2.840.10008.5.1.4.1.1.2",),
        },
        received_at=datetime(2026, 7, 1, 0, 0, tzinfo=UTC).timestamp(),  # summer time
    )
    assert one("{received: 2026-07-01T02:00Z}").facts.received_at == 7200 + case.facts.received_at
    assert one("{calling_ae: CT1, remote: ''}").facts.remote == ""
    assert one("{SOPClassUID: 1.2.3}").facts.sop_class_uid == "1.2.3"


def test_what_is_given_to_all_can_be_replaced_in_one() -> None:
    first, second = cases(
        "given: {calling_ae: CT1, Modality: CT}\n"
        "cases:\n"
        "- {name: a, expect: {to: pacs}}\n"
        "- {name: b, given: {Modality: MR}, expect: {hold: true}}\n"
    )
    assert first.facts.attributes == {MODALITY: ("CT",)}
    assert second.facts.attributes == {MODALITY: ("MR",)}
    assert (first.facts.calling_ae, second.facts.calling_ae) == ("CT1", "CT1")
    assert (second.file, second.line) == ("cases.yaml", 4)


def test_the_example_of_the_reference_is_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "trying-rules.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    under = replace(NAMES, destinations=("pacs", "teleread", "teleread-2"))
    (case,) = cases(example, under)
    assert case.facts.attributes[Private(0x0019, "GEMS_ACQU_01", 0x10)] == ("5",)
    assert case.facts.attributes[0x00400275, 0x00400009] == ("P7",)
    assert case.expected.options == (("priority", "teleread", 10),)
    assert [str(w) for w in case.expected.to or ()] == [
        "pacs",
        "{failover: [teleread, teleread-2]}",
    ]


def test_where_the_rules_are() -> None:
    found = rules_file(parse("{rules: ../config.yaml, cases: []}", "cases.yaml"))
    assert found is not None
    assert found.text == "../config.yaml"
    assert rules_file(parse("[]", "cases.yaml")) is None
    assert rules_file(parse("{rules: , cases: []}", "cases.yaml")) is None


# -- verdicts ------------------------------------------------------------------------------------

PACS = Route("pacs", "ct")
PAIR = Route(
    *("archive-a", "pair"),
    priority=10,
    mode="failover",
    members=("archive-a", "archive-b"),
    send=Send(after="study-complete", schedule="after-hours", priority=10),
)
OF_PAIR = "{failover: [archive-a, archive-b]}"
SHARED = Route("archive-b", "pair", mode="balance", members=("archive-b", "archive-a"))


def routed(*routes: Route, tags: tuple[str, ...] = ()) -> Decision:
    return Decision("route", routes, "", "v", tags)


HELD = Decision("hold", (), "no rule matched", "v")
GONE = Decision("discard", (), "rule 'x': localizers", "v")

VERDICTS = [
    ("{to: pacs}", routed(PACS), []),
    ("{to: [archive-a, pacs]}", routed(PACS, PAIR), []),
    ("{to: pacs}", routed(PACS, PAIR), [f"it goes to {OF_PAIR}"]),
    ("{to: [pacs, teleread]}", routed(PACS), ["it does not go to teleread"]),
    ("{to: pacs}", HELD, ["it does not go to pacs"]),
    ("{to: []}", HELD, []),
    ("{to: []}", routed(PACS), ["it goes to pacs"]),
    ("{to: {failover: [archive-a, archive-b]}}", routed(PAIR), []),
    (
        "{to: {failover: [archive-b, archive-a]}}",
        routed(PAIR),
        ["it does not go to {failover: [archive-b, archive-a]}, but to " + OF_PAIR],
    ),
    (
        "{to: {first_available: [archive-a, archive-b]}}",
        routed(PAIR),
        ["it does not go to {first_available: [archive-a, archive-b]}, but to " + OF_PAIR],
    ),
    ("{to: {balance: [archive-a, archive-b]}}", routed(SHARED), []),
    ("{to: archive-b}", routed(SHARED), []),
    (
        "{to: archive-a}",
        routed(SHARED),
        ["it does not go to archive-a, but to {balance: [archive-b, archive-a]}"],
    ),
    ("{not_to: teleread}", routed(PACS), []),
    ("{not_to: [teleread, pacs]}", routed(PACS), ["it goes to pacs"]),
    ("{not_to: archive-b}", routed(PAIR), ["it may go to archive-b"]),
    ("{to: pacs, not_to: archive-b}", routed(PACS, PAIR), ["it may go to archive-b"]),
    ("{hold: true}", HELD, []),
    ("{hold: no rule}", HELD, []),
    ("{hold: ward}", HELD, ["it is held for another reason: no rule matched"]),
    ("{hold: false}", HELD, ["it is held: no rule matched"]),
    ("{hold: false}", routed(PACS), []),
    ("{hold: true}", routed(PACS), ["it is not held: it goes to pacs"]),
    ("{hold: true}", GONE, ["it is not held: it is discarded: rule 'x': localizers"]),
    ("{discard: localizers}", GONE, []),
    ("{discard: true}", HELD, ["it is not discarded: it is held: no rule matched"]),
    ("{discard: false}", GONE, ["it is discarded: rule 'x': localizers"]),
    ("{tag: night}", routed(PACS, tags=("night", "b")), []),
    ("{tag: night}", routed(PACS, tags=("b",)), ["it has no label night"]),
    ("{priority: high}", routed(PACS, PAIR), []),
    ("{priority: 11}", routed(PACS, PAIR), ["priority is not 11, but 0 at pacs, 10 at archive-a"]),
    ("{priority: {pacs: high}}", routed(PACS, PAIR), ["priority is not 10, but 0 at pacs"]),
    ("{after: {pacs: at-once, archive-a: study-complete}}", routed(PACS, PAIR), []),
    ("{schedule: {pacs: none, archive-a: after-hours}}", routed(PACS, PAIR), []),
    (
        "{schedule: {teleread: none}}",
        routed(PACS),
        ["schedule is not none: it does not go to teleread"],
    ),
    ("{after: at-once}", HELD, ["after is not at-once: it does not go anywhere"]),
    ("{keep: 30d}", replace(routed(PACS), keep_for=2592000.0), []),
    ("{keep: 1h}", replace(HELD, keep_for=3600.0), []),
    ("{keep: 30d}", HELD, ["it is not kept for 30 d: it is not kept by any rule"]),
    (
        "{keep: 2d}",
        replace(HELD, keep_for=5400.0),
        ["it is not kept for 2 d: it is kept for 1.5 h"],
    ),
    ("{keep: none}", routed(PACS), []),
    ("{keep: none, discard: false}", replace(HELD, keep_for=86400.0), ["it is kept for 1 d"]),
]


@pytest.mark.parametrize(("expect", "decision", "told"), VERDICTS)
def test_verdicts(expect: str, decision: Decision, told: list[str]) -> None:
    assert [m.text for m in judge(one(expect=expect), decision)] == told


def test_the_rules_that_have_to_do_with_it() -> None:
    pacs = Rule("ct", targets=(Target("one", ("pacs",)),))
    pair = Rule("pair", targets=(Target("failover", ("archive-a", "archive-b")),))
    label = Rule("label", tags=("night",))
    stop = Rule("stop", discard="")
    kept = Rule("kept", keep_for=60.0)
    rules = (pacs, pair, label, stop, kept)

    def involved(expect: str, decision: Decision) -> list[str]:
        mismatches = judge(one(expect=expect), decision)
        return [r.name for r in rules if any(concerns(m, r, decision) for m in mismatches)]

    assert involved("{to: [pacs, archive-b]}", routed(PACS)) == ["pair"]
    assert involved("{to: pacs}", routed(PACS, PAIR)) == ["pair"]
    assert involved("{to: pacs}", GONE) == ["ct", "stop"]
    assert involved("{hold: true}", routed(PACS)) == ["ct", "stop"]
    assert involved("{tag: night}", routed(PACS)) == ["label"]
    assert involved("{keep: 1d}", routed(PACS)) == ["kept"]
    assert involved("{to: pacs}", routed(PACS)) == []


def test_a_decision_in_words() -> None:
    assert words(routed(PACS, PAIR)) == "goes to pacs, {failover: [archive-a, archive-b]}"
    assert words(HELD) == "is held: no rule matched"
