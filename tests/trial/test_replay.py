"""Other rules over what was received: what is compared is what is on record."""

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from router.spool.index_types import Filter
from router.spool.index_view import IndexView
from router.spool.look import Lookout
from router.spool.plan import Plan
from router.spool.record import InstanceMeta, Ref, RouteMeta
from router.trial.compare import compare, options_changed
from router.trial.replay import EXAMPLES, Replay, Report
from rules.attributes import Attribute
from rules.pattern import Exact
from rules.rule import AllOf, Match, Not, Rule, Send, Subject, Target
from rules.ruleset import RuleSet
from tests.spool.keeping import deliver
from tests.spool.spool_samples import Rig, meta, segment_of

MODALITY = Attribute((0x00080060,))
PATIENT_ID = Attribute((0x00100020,))
EVER = (0.0, float("inf"), None)


def data_set(number: int, **elements: Any) -> bytes:
    found = Dataset()
    found.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    found.SOPInstanceUID = f"1.2.3.4.{number}"
    found.Modality = "CT"
    found.PatientName = "Doe^Jane"
    found.PatientID = f"P{number}"
    for name, value in elements.items():
        setattr(found, name, value)
    buffer = BytesIO()
    dcmwrite(buffer, found, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def store(rig: Rig, number: int, what: InstanceMeta | None = None, **elements: Any) -> Ref:
    described = (meta(number, "pacs") if what is None else what)._replace(modality="CT")
    ref = rig.commit(data_set(number, **elements), described).kept
    rig.feed()
    return ref


def rule(
    name: str, to: str = "", *, when: tuple[tuple[Subject, str], ...] = (), **more: Any
) -> Rule:
    conditions = tuple(Match(subject, (Exact(text),)) for subject, text in when)
    targets = (Target("one", (to,)),) if to else ()
    return Rule(name, AllOf(conditions), targets, **more)


@pytest.fixture
def look(rig: Rig) -> Iterator[Lookout]:
    view = IndexView(rig.directory / "index.sqlite")
    lookout = Lookout(rig.directory / "spool", view)
    yield lookout
    lookout.close()
    view.close()


def replay(look: Lookout, *rules: Rule, limit: int | None = None, **more: Any) -> Report:
    run = Replay(look, RuleSet(rules), lambda calling_ae, source: "ct", **more)
    return run.run(0.0, float("inf"), limit)


def test_the_same_rules_make_no_difference(rig: Rig, look: Lookout) -> None:
    for number in range(3):
        store(rig, number)
    report = replay(look, rule("another name", "pacs"))
    assert (report.replayed, report.same, report.moves) == (3, 3, {})
    assert report.oldest == 1_700_000_000.0
    assert report.newest == 1_700_000_002.0
    line = report.destinations["pacs"]
    assert (line.before, line.after, line.added.count, line.dropped.count) == (3, 3, 0, 0)


def test_added_and_dropped_by_what_the_data_set_says(rig: Rig, look: Lookout) -> None:
    refs = [store(rig, number, Modality="MR" if number == 2 else "CT") for number in range(8)]
    report = replay(
        look, rule("mr", "pacs", when=((MODALITY, "MR"),)), rule("all", "archive", tags=("new",))
    )
    pacs, archive = report.destinations["pacs"], report.destinations["archive"]
    assert (pacs.before, pacs.after, pacs.dropped.count) == (8, 1, 7)
    assert (archive.before, archive.after, archive.added.count) == (0, 8, 8)
    assert [e.id for e in archive.added.examples] == [r.id for r in refs[:-6:-1]]
    assert len(archive.added.examples) == EXAMPLES
    assert report.labels_added["new"].count == 8
    assert report.same == 0
    example = pacs.dropped.examples[0]
    assert (example.id, example.calling_ae, example.called_ae) == (refs[7].id, "CT1", "ROUTER")
    assert (example.modality, example.patient_id, example.patient_name) == ("CT", None, None)


def test_held_and_discarded(rig: Rig, look: Lookout) -> None:
    store(rig, 1, Modality="CT")
    store(rig, 2, Modality="MR")
    store(rig, 3, meta(3), Modality="US")  # held then
    report = replay(
        look,
        rule("away", when=((MODALITY, "CT"),), discard="not kept"),
        rule("us", "pacs", when=((MODALITY, "US"),)),
    )
    assert {move: kind.count for move, kind in report.moves.items()} == {
        ("route", "discard", "rule 'away': not kept"): 1,
        ("route", "hold", "no rule matched"): 1,
        ("hold", "route", ""): 1,
    }
    assert report.dispositions == {"route": [2, 1], "hold": [1, 1], "discard": [0, 1]}
    assert (report.destinations["pacs"].dropped.count, report.destinations["pacs"].added.count) == (
        2,
        1,
    )


def test_changed_options(rig: Rig, look: Lookout) -> None:
    plan = Plan(after="study-complete", quiet=60.0).to_text()
    store(rig, 1, meta(1)._replace(disposition="route", routes=(RouteMeta("pacs", "r", 0, plan),)))
    store(rig, 2)
    night = rule("night", "pacs", send=Send(after="study-complete", quiet=120.0, priority=10))
    report = replay(look, night)
    changed = report.destinations["pacs"].changed
    assert {what: kind.count for what, kind in changed.items()} == {
        "priority 0 → 10, quiet 60 s → 120 s": 1,
        "priority 0 → 10, after at-once → study-complete, quiet 60 s → 120 s": 1,
    }
    assert report.same == 0


def test_what_is_compared_is_the_record_and_not_what_an_operator_did(
    rig: Rig, look: Lookout
) -> None:
    store(rig, 1)
    rig.index.drop(Filter(), "not wanted", at=2e9)
    store(rig, 2, meta(2))
    rig.index.route_held(Filter(), ["elsewhere"], "by an operator", at=2e9)
    report = replay(look, rule("ct", "pacs", when=((Attribute((0x00080018,)), "1.2.3.4.1"),)))
    assert (report.replayed, report.same) == (2, 2)
    assert set(report.destinations) == {"pacs"}


def test_quarantined_instances_are_not_decided(rig: Rig, look: Lookout) -> None:
    store(rig, 1, meta(1)._replace(quarantined=True, reason="cannot be parsed"))
    report = replay(look, rule("all", "pacs"))
    assert (report.replayed, report.quarantined, report.moves) == (0, 1, {})


def test_a_fault_behind_what_only_the_candidate_looks_at_holds(rig: Rig, look: Lookout) -> None:
    broken = data_set(1) + b"\x20\x00\x11\x00IS\xff\xff"  # a value longer than the data set
    rig.commit(broken, meta(1, "pacs"))
    rig.feed()
    same = replay(look, rule("all", "pacs"))
    assert (same.replayed, same.same) == (1, 1)
    number = Attribute((0x00200013,))
    report = replay(look, rule("first", "pacs", when=((number, "1"),)), rule("all", "pacs"))
    ((_, after, why),) = report.moves
    assert after == "hold"
    assert why.startswith("cannot be parsed: element (0020,0011)")


def test_who_called_is_asked_of_the_candidates_configuration(rig: Rig, look: Lookout) -> None:
    store(rig, 1)  # its record says remote "ct"
    rules = RuleSet([rule("new", "pacs", when=(("remote", "ct-new-name"),))])
    asked = []

    def identify(calling_ae: str, source: str) -> str:
        asked.append((calling_ae, source))
        return "ct-new-name"

    assert Replay(look, rules, identify).run(*EVER).same == 1
    assert asked == [("CT1", "10.0.0.7")]


def test_the_time_of_reception_is_that_of_then(rig: Rig, look: Lookout) -> None:
    store(rig, 0)
    limit = datetime.fromtimestamp(1_700_000_000, UTC)
    report = replay(look, rule("then", "pacs", until=limit), rule("now", "archive"))
    assert (report.destinations["pacs"].after, report.destinations["archive"].after) == (0, 1)
    later = datetime.fromtimestamp(1_700_000_001, UTC)
    report = replay(look, rule("then", "pacs", until=later))
    assert report.same == 1


def test_patients_are_shown_when_asked_for(rig: Rig, look: Lookout) -> None:
    store(rig, 7)
    report = replay(look, rule("all", "archive"), show_patient=True)
    example = report.destinations["archive"].added.examples[0]
    assert (example.patient_id, example.patient_name) == ("P7", "Doe^Jane")


def test_purged_and_damaged_ones_are_counted_apart(rig: Rig, look: Lookout) -> None:
    refs = [store(rig, number) for number in range(4)]
    deliver(rig, refs[:1])
    rig.index.purge(2e9, 10)
    with segment_of(rig, refs[2]).open("r+b") as file:
        file.seek(refs[2].offset + 70)
        file.write(b"\xff")
    report = replay(look, rule("all", "pacs"))
    assert (report.replayed, report.purged, report.damaged.count) == (2, 1, 1)
    assert report.damaged.examples[0].detail == "damaged description"
    limited = replay(look, rule("all", "pacs"), limit=1)
    assert (limited.replayed, limited.purged) == (1, 0)


def test_kinds_of_change_are_bounded(rig: Rig, look: Lookout) -> None:
    for number in range(60):
        what = meta(number)
        plan = Plan(schedule=f"s{number}").to_text()
        store(
            *(rig, number),
            what._replace(disposition="route", routes=(RouteMeta("pacs", "r", 0, plan),)),
        )
    changed = replay(look, rule("all", "pacs")).destinations["pacs"].changed
    assert len(changed) == 51
    assert changed["other changes"].count == 10
    assert changed["other changes"].examples[0].detail.startswith("schedule s")
    assert sum(kind.count for kind in changed.values()) == 60


def test_kinds_of_reasons_are_bounded(rig: Rig, look: Lookout) -> None:
    for number in range(60):
        store(rig, number)
    rules = [rule(f"r{n}", when=((PATIENT_ID, f"P{n}"),), discard=f"reason {n}") for n in range(60)]
    moves = replay(look, *rules).moves
    assert len(moves) == 51
    rest = moves["route", "discard", "other reasons"]
    assert rest.count == 10
    assert rest.examples[0].detail == "rule 'r9': reason 9"


def test_a_change_in_words() -> None:
    def route(priority: int = 0, **plan: Any) -> RouteMeta:
        return RouteMeta("pacs", "r", priority, Plan(**plan).to_text())

    assert options_changed(route(), RouteMeta("pacs", "another rule")) == ""
    assert options_changed(route(), route(mode="failover", members=("pacs", "b"))) == (
        "mode one → failover, members none → [pacs, b]"
    )
    assert options_changed(route(schedule="night"), route()) == "schedule night → none"
    assert "unreadable" in options_changed(RouteMeta("pacs", "r", 0, "[]"), route())


def test_labels_that_differ_are_a_difference() -> None:
    before, after = (meta(1, "pacs")._replace(tags=tags) for tags in (("a", "b"), ("b",)))
    found = compare(before, after)
    assert (found.any, found.labels_dropped, found.labels_added) == (True, ("a",), ())
    assert not compare(before, before).any


def test_what_is_too_large_to_be_compared_would_be_held(rig: Rig, look: Lookout) -> None:
    store(rig, 1, PatientComments="x" * 70_000)
    store(rig, 2, PatientComments="x")
    comments = Attribute((0x00104000,))
    private = Not(Match(comments, (Exact("secret"),)))
    report = replay(look, Rule("rest", AllOf((private,)), (Target("one", ("pacs",)),)))
    assert report.same == 1
    [((before, after, why), kind)] = report.moves.items()
    assert (before, after, kind.count) == ("route", "hold", 1)
    assert why == "PatientComments (0010,4000), which rules look at, is too large to be compared"
    assert (report.destinations["pacs"].before, report.destinations["pacs"].after) == (2, 1)
