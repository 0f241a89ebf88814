"""Commitments that peers asked of us, and finding instances by UID alone."""

from pathlib import Path

import pytest

from router.spool import index_promises, sqlite
from router.spool.index import Index
from router.spool.index_commitments import COMMITTED, LISTED
from router.spool.index_promises import Asked, Kept, Promise, PromiseItem, PromiseState
from router.spool.index_schema import STEPS
from router.spool.index_types import Disposition
from router.spool.plan import Plan
from tests.spool import index_version_2
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DUPLICATE,
    READY,
    T0,
    UNCOMMITTED,
    add,
    audited,
    fate,
    fill,
    meta,
    outcome,
    ref,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
ITEMS = ((CT, "1.2.3.4.1"), (CT, "1.2.3.4.2"))


def asked(uid: str = "2.25.1", remote: str = "ct", items: object = ITEMS) -> Asked:
    assert isinstance(items, tuple)
    return Asked(uid, remote, "CT1", "ROUTER", "a1", items)


def test_what_is_damaged_here_is_told(index: Index) -> None:
    why = "damaged in the spool: CRC-32 is 0, 1 was committed"
    add(
        index,
        (ref(1), meta(1, quarantined=True, reason=why)),
        (ref(2), meta(2, "pacs")),
        (ref(3), meta(3, "pacs")),
    )
    index.settle([outcome(2, "pacs", DEAD, reason=why), outcome(3, "pacs", DEAD, reason="no")])
    found = look(index, *(f"1.2.3.4.{n}" for n in (1, 2, 3)))
    assert [found[f"1.2.3.4.{n}"][0].damaged for n in (1, 2, 3)] == [True, True, False]


def only(index: Index, *, everything: bool = False) -> Promise:
    (found,) = index.promises.listing(10, everything=everything)
    return found


def look(index: Index, *uids: str) -> dict[str, list[Kept]]:
    """All that is found, over as many calls as it takes."""
    found: dict[str, list[Kept]] = {}
    place = None
    index.promises.want(uids, anew=True)
    for _ in range(100):
        some, place = index.promises.look(place)
        for one in some:
            found.setdefault(one.sop_instance_uid, []).append(one)
        if place is None:
            return found
    raise AssertionError("it does not end")


# -- requests ----------------------------------------------------------------------------------


def test_nothing_was_asked(index: Index) -> None:
    promises = index.promises
    assert promises.due(T0, (), 10) == []
    assert promises.next_due(()) is None
    assert promises.open() == 0
    assert promises.listing(10, everything=True) == []
    assert promises.items(1) == []


def test_the_same_transaction_for_other_instances_is_a_conflict(index: Index) -> None:
    promises = index.promises
    new = promises.ask(asked(), T0, T0 + 5)
    assert new[0] == "new"
    assert promises.ask(asked(), T0 + 1, T0) == ("known", new[1])
    assert promises.ask(asked(items=ITEMS[::-1]), T0 + 1, T0) == ("known", new[1])
    assert promises.ask(asked(items=ITEMS[:1]), T0 + 1, T0) == ("conflict", new[1])
    assert promises.ask(asked(remote="mr"), T0, T0)[0] == "new", "another remote's is another"
    assert promises.open() == 2


def test_a_transaction_that_is_over_makes_room(index: Index) -> None:
    promises = index.promises
    _, first = promises.ask(asked(), T0, T0)
    promises.settle(first, PromiseState.REPORTED, "", T0 + 9)
    settled = only(index, everything=True)
    assert (settled.state, settled.settled_at, settled.due_at) == (
        PromiseState.REPORTED,
        T0 + 9,
        None,
    )
    assert promises.items(first) == []
    word, second = promises.ask(asked(items=ITEMS[:1]), T0 + 20, T0 + 21)
    assert word == "new"
    assert second > first
    assert only(index, everything=True).items == 1


def test_one_remote_at_a_time_the_one_that_waits_longest(index: Index) -> None:
    promises = index.promises
    for number, (remote, due) in enumerate([("b", 3), ("a", 2), ("b", 1), ("c", 50)]):
        promises.ask(asked(f"2.25.{number}", remote), T0, T0 + due)
    assert [p.transaction_uid for p in promises.due(T0 + 10, (), 10)] == ["2.25.2", "2.25.0"]
    assert [p.transaction_uid for p in promises.due(T0 + 10, (), 1)] == ["2.25.2"]
    assert [p.remote for p in promises.due(T0 + 10, ("b",), 10)] == ["a"]
    assert promises.due(T0 + 10, ("a", "b"), 10) == []
    assert promises.next_due(()) == T0 + 1
    assert promises.next_due(("a", "b")) == T0 + 50
    assert promises.next_due(("a", "b", "c")) is None


def test_verdicts_are_kept_and_counted(index: Index) -> None:
    promises = index.promises
    _, number = promises.ask(asked(), T0, T0)
    promises.weighed(number, {1: 0x112}, PromiseState.WEIGHING, T0 + 7)
    assert promises.items(number) == [
        PromiseItem(0, CT, "1.2.3.4.1", None),
        PromiseItem(1, CT, "1.2.3.4.2", 0x112),
    ]
    promise = only(index)
    assert (promise.committed, promise.failed, promise.due_at) == (0, 1, T0 + 7)
    promises.weighed(number, {0: 0}, PromiseState.REPORTING, T0 + 8)
    promise = only(index)
    assert (promise.committed, promise.failed, promise.state) == (1, 1, PromiseState.REPORTING)


def test_what_is_over_is_neither_put_off_nor_hastened(index: Index) -> None:
    promises = index.promises
    _, number = promises.ask(asked(), T0, T0)
    promises.put_off(number, "no answer", T0 + 60)
    assert (only(index).attempts, only(index).reason, only(index).due_at) == (
        1,
        "no answer",
        T0 + 60,
    )
    promises.hasten(number, T0 + 2)
    assert only(index).due_at == T0 + 2
    promises.settle(number, PromiseState.GIVEN_UP, "no answer", T0 + 3)
    promises.put_off(number, "late", T0 + 60)
    promises.hasten(number, T0 + 60)
    over = only(index, everything=True)
    assert (over.reason, over.due_at, over.attempts) == ("no answer", None, 1)
    assert promises.next_due(()) is None


def test_what_is_over_is_told_of_for_a_while(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_promises, "_KEPT", 3)
    promises = index.promises
    _, waits = promises.ask(asked("2.25.0"), T0, T0)
    for number in range(1, 8):
        _, one = promises.ask(asked(f"2.25.{number}"), T0, T0)
        promises.settle(one, PromiseState.REPORTED, "", T0)
    told = [p.transaction_uid for p in promises.listing(100, everything=True)]
    assert told == ["2.25.7", "2.25.6", "2.25.5", "2.25.0"]
    assert only(index).id == waits, "what is open stays, however old"


def test_it_survives_a_restart(tmp_path: Path) -> None:
    with audited(tmp_path / "index.db") as index:
        _, number = index.promises.ask(asked(), T0, T0 + 5)
        index.promises.weighed(number, {0: 0}, PromiseState.WEIGHING, T0 + 6)
        before = only(index)
    with audited(tmp_path / "index.db") as index:
        assert only(index) == before
        assert [item.verdict for item in index.promises.items(number)] == [0, None]


def test_text_that_sqlite_cannot_keep(index: Index) -> None:
    one = Asked("2.25.1", "ct", "A\0B", "R\ud800", "a1", ITEMS)
    assert index.promises.ask(one, T0, T0)[0] == "new"
    assert only(index).peer_ae == "A\ufffdB"


@pytest.mark.parametrize("version", [2, 3])
def test_an_older_index_is_brought_up(tmp_path: Path, version: int) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)
    if version == 3:
        connection = sqlite.connect(path)
        connection.execute("BEGIN")
        STEPS[2](connection)
        connection.execute("PRAGMA user_version = 3")
        connection.execute("COMMIT")
        connection.close()
    with audited(path) as index:
        assert index.promises.ask(asked(), T0, T0)[0] == "new"
        found = {kept.instance_id: kept.deliveries for kept in look(index, "1.2.3.7")["1.2.3.7"]}
        assert found == {7: {"pacs": READY, "vna": DELIVERED}, 9: {"pacs": READY}}


# -- finding instances -------------------------------------------------------------------------


def test_instances_are_found_whatever_their_study(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    fill(index, [3], "pacs", "vna", study="1.2.4")
    add(index, (ref(4), meta(4, study="")))
    index.settle([outcome(3, "vna", DELIVERED, status=0)])
    found = look(index, "1.2.3.4.1", "1.2.3.4.3", "1.2.3.4.4", "1.2.3.4.99")
    assert found == {
        "1.2.3.4.1": [Kept(1, CT, "1.2.3.4.1", Disposition.ROUTED, {"pacs": READY}, (100, 1))],
        "1.2.3.4.3": [
            Kept(
                *(3, CT, "1.2.3.4.3", Disposition.ROUTED, {"pacs": READY, "vna": DELIVERED}),
                content=(100, 3),
            )
        ],
        "1.2.3.4.4": [Kept(4, CT, "1.2.3.4.4", Disposition.HELD, {}, (100, 4))],
    }


def test_what_its_destination_has_said_that_it_keeps(index: Index) -> None:
    fill(index, [1, 2, 3, 4, 5], "pacs")
    said = "B000H, warning (committed, transaction 2.25.7)"
    index.settle([outcome(1, "pacs", DELIVERED, reason=said)])
    index.settle([outcome(n, "pacs", UNCOMMITTED, status=0) for n in (2, 3, 4)])
    assert index.commitments.ask("pacs", "2.25.9", 3, T0, T0) is not None
    for number, words in ((2, f"{COMMITTED} 2.25.9"), (3, LISTED), (4, "not asked for any more")):
        uid = f"1.2.3.4.{number}"
        index.commitments.answer("2.25.9", [uid], {}, at=T0, most={}, words=words)
    found = look(index, *(f"1.2.3.4.{n}" for n in range(1, 6)))
    proven = [number for number in range(1, 6) if found[f"1.2.3.4.{number}"][0].proven]
    assert proven == [2, 3]


def test_what_is_damaged_is_found_as_such(index: Index) -> None:
    torn = "damaged in the spool: wrong checksum; if its sender got no answer it sends again"
    add(index, (ref(1), meta(1, disposition="hold", quarantined=True, reason=torn)))
    fill(index, [2, 3], "pacs", "vna")
    bad = "damaged in the spool: wrong checksum"
    index.settle([outcome(2, "pacs", DEAD, reason=bad), outcome(3, "pacs", DEAD, reason=bad)])
    index.settle([outcome(3, "vna", DELIVERED, status=0)])
    found = look(index, *(f"1.2.3.4.{n}" for n in (1, 2, 3)))
    assert {uid: one.damaged for uid, (one,) in found.items()} == {
        "1.2.3.4.1": True,
        "1.2.3.4.2": True,
        "1.2.3.4.3": False,  # it was whole when the other one took it
    }


def test_what_is_damaged_in_place_of_another_member_is_found_as_such(index: Index) -> None:
    fill(index, [1, 2], "a", plan=Plan(mode="failover", members=("a", "b")))
    index.divert("a", {"b"}, (), T0 + 500)
    bad = "damaged in the spool: wrong checksum"
    index.settle([outcome(1, "b", DEAD, reason=bad), outcome(2, "b", DEAD, reason=f"said {bad}")])
    assert fate(index, 1, "b").reason == f"in place of a; {bad}"
    found = look(index, *(f"1.2.3.4.{n}" for n in (1, 2)))
    assert {uid: one.damaged for uid, (one,) in found.items()} == {
        "1.2.3.4.1": True,
        "1.2.3.4.2": False,  # somebody else's words
    }


def test_a_long_search_goes_in_steps(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_promises, "_STEP", 3)
    for number in range(1, 21):
        fill(index, [number], "pacs", study=f"1.2.{number % 4}")
    found = look(index, *(f"1.2.3.4.{n}" for n in range(1, 30)))
    assert sorted(kept.instance_id for all_ in found.values() for kept in all_) == [*range(1, 21)]
    index.promises.want(["1.2.3.4.1"], anew=True)
    some, place = index.promises.look(None)
    assert some == []
    assert place is not None, "the study that came last is looked through first"


@pytest.mark.parametrize("step", [1, 3, 7, 100])
def test_what_came_since_is_found_in_steps(
    index: Index, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(index_promises, "_STEP", step)
    for number in (1, 2, 4, 9, 11, 12, 13):
        fill(index, [number], "pacs", study=f"1.2.{number % 3}")
    assert index.promises.newest() == 13
    index.promises.want([f"1.2.3.4.{n}" for n in (1, 4)], anew=True)
    index.promises.want([f"1.2.3.4.{n}" for n in (9, 13, 99)], anew=False)
    found, after, calls = [], 1, 0
    while after < 12:
        some, after = index.promises.look_after(after, 12)
        found += [one.instance_id for one in some]
        calls += 1
    assert found == [4, 9]
    assert calls == {1: 5, 3: 2, 7: 1, 100: 1}[step]


def test_another_uid_with_the_same_number_is_not_it(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index, [1, 2], "pacs")
    rows = index._db.run("UPDATE instance SET sop_key = 7")
    assert rows == 2
    monkeypatch.setattr(index_promises, "sop_key", lambda _: 7)
    index.promises.want(["1.2.3.4.1"], anew=True)
    index.promises.want(["1.2.3.4.2"], anew=True)
    assert [one.sop_instance_uid for one in index.promises.look_after(0, 9)[0]] == ["1.2.3.4.2"]
    assert list(look(index, "1.2.3.4.2")) == ["1.2.3.4.2"]


def test_what_repeats_another_is_where_that_is(index: Index) -> None:
    for number in (1, 2):
        add(index, (ref(number, crc=5), meta(number, "pacs", uid="1.2.9")))
    assert [k.deliveries["pacs"] for k in look(index, "1.2.9")["1.2.9"]] == [READY, READY]
    index.settle([outcome(1, "pacs", DELIVERED, status=0)])
    assert [k.deliveries["pacs"] for k in look(index, "1.2.9")["1.2.9"]] == [DELIVERED, DELIVERED]
    index._db.run("UPDATE instance SET settled_at = 1 WHERE id = 1")
    assert index.purge(T0 - 1000, 1).count == 1
    (left,) = look(index, "1.2.9")["1.2.9"]
    assert left.deliveries == {"pacs": DELIVERED}


def test_what_repeats_nothing_any_more_is_nowhere(index: Index) -> None:
    for number in (1, 2):
        add(index, (ref(number, crc=5), meta(number, "pacs", uid="1.2.9")))
    index.settle([outcome(1, "pacs", DELIVERED, status=0)])
    index._db.run("UPDATE delivery SET duplicate_of = NULL WHERE instance_id = 2")
    states = {k.instance_id: k.deliveries["pacs"] for k in look(index, "1.2.9")["1.2.9"]}
    assert states == {1: DELIVERED, 2: DUPLICATE}
