"""A destination's name that stands for another host: what the one of before has tells nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from router.spool import sqlite
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_peers import Peer
from router.spool.index_schema import STEPS
from router.spool.index_types import DeliveryState, Filter
from router.spool.plan import Plan
from tests.spool import index_version_2
from tests.spool.index_samples import (
    DELIVERED,
    DROPPED,
    DUPLICATE,
    READY,
    T0,
    UNCOMMITTED,
    add,
    audited,
    meta,
    outcome,
    ref,
    state,
)

OLD = ("10.0.0.1", 104, "PACS")
NEW = ("10.0.0.2", 104, "PACS")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with audited(tmp_path / "index.db") as opened:
        opened.take_peers({"pacs": OLD, "vna": OLD}, T0)
        yield opened


def _come(index: Index, number: int, *destinations: str, plan: Plan | str = "") -> None:
    """The same bytes as all the others here."""
    add(index, (ref(number, crc=1), meta(number, *destinations, uid="1.2.3.4", plan=plan)))


@pytest.mark.parametrize(
    "peer",
    [NEW, ("10.0.0.1", 105, "PACS"), ("10.0.0.1", 104, "OTHER")],
    ids=["host", "port", "AE title"],
)
@pytest.mark.parametrize("had", [DELIVERED, UNCOMMITTED])
def test_what_the_host_of_before_has_is_sent_again(
    index: Index, had: DeliveryState, peer: tuple[str, int, str]
) -> None:
    _come(index, 1, "pacs", "vna")
    index.settle([outcome(1, "pacs", had), outcome(1, "vna", had)])
    assert index.take_peers({"pacs": peer, "vna": OLD}, T0 + 2000) == ["pacs"]
    _come(index, 2, "pacs", "vna")
    assert (state(index, 2, "pacs"), state(index, 2, "vna")) == (READY, DUPLICATE)


def test_the_clock_does_not_matter_nor_when_it_was_answered(index: Index) -> None:
    _come(index, 1, "pacs")
    index.take_peers({"pacs": NEW}, T0 - 1e6)
    index.settle([outcome(1, "pacs", DELIVERED, at=T0 + 1e6)])  # it was under way
    _come(index, 2, "pacs")
    assert state(index, 2, "pacs") is READY


def test_what_the_new_host_has_makes_duplicates(index: Index) -> None:
    _come(index, 1, "pacs")
    index.settle([outcome(1, "pacs", DELIVERED)])
    index.take_peers({"pacs": NEW}, T0 + 2000)
    _come(index, 2, "pacs")
    index.settle([outcome(2, "pacs", DELIVERED, at=T0)])
    _come(index, 3, "pacs")
    assert state(index, 3, "pacs") is DUPLICATE


def test_what_waits_goes_to_the_new_host_once(index: Index) -> None:
    _come(index, 1, "pacs")
    index.take_peers({"pacs": NEW}, T0 + 2000)
    _come(index, 2, "pacs")
    assert state(index, 2, "pacs") is DUPLICATE


def test_the_same_again_changes_nothing(index: Index) -> None:
    _come(index, 1, "pacs")
    index.settle([outcome(1, "pacs", DELIVERED)])
    assert index.take_peers({"pacs": OLD}, T0 + 2000) == []
    assert index.take_peers({}, T0 + 2000) == []  # it is not configured for a while
    assert index.take_peers({"pacs": OLD}, T0 + 2000) == []
    _come(index, 2, "pacs")
    assert state(index, 2, "pacs") is DUPLICATE


def test_another_member_that_has_it_is_looked_at_by_its_own_peer(index: Index) -> None:
    plan = Plan(mode="failover", members=("pacs", "vna"))
    _come(index, 1, "vna")
    index.settle([outcome(1, "vna", DELIVERED)])
    index.take_peers({"vna": NEW}, T0 + 2000)
    _come(index, 2, "pacs", plan=plan)
    assert state(index, 2, "pacs") is READY


def test_it_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        index.take_peers({"pacs": OLD}, T0)
        _come(index, 1, "pacs")
        index.settle([outcome(1, "pacs", DELIVERED)])
    with audited(path) as index:
        assert index.take_peers({"pacs": NEW}, T0 + 2000) == ["pacs"]
    with audited(path) as index:
        assert index.take_peers({"pacs": NEW}, T0 + 3000) == []
        _come(index, 2, "pacs")
        assert state(index, 2, "pacs") is READY


def test_it_holds_though_it_cannot_be_written(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    _come(index, 1, "pacs")
    index.settle([outcome(1, "pacs", DELIVERED)])

    def failing(*_: object) -> None:
        raise SpoolError("no")

    with monkeypatch.context() as patch:
        patch.setattr(index._db, "run_rows", failing)
        with pytest.raises(SpoolError):
            index.take_peers({"pacs": NEW}, T0 + 2000)
    _come(index, 2, "pacs")
    assert state(index, 2, "pacs") is READY
    assert index.take_peers({"pacs": NEW}, T0 + 3000) == ["pacs"]


def test_what_a_host_had_while_the_feed_did_not_know_of_it(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: what was put into the index by a transaction that seemed to fail, and went from
    there, was taken for the next host's."""
    add(index, (ref(1, crc=9), meta(1, "pacs", uid="1.9")))
    transaction = index._db.transaction

    @contextmanager
    def late() -> Iterator[None]:
        with transaction():
            yield
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(index._db, "transaction", late)
        with pytest.raises(MemoryError):
            _come(index, 2, "pacs")
    assert [one.ref.id for one in index.lease("pacs", 10, T0 + 9, (1,))] == [2]
    index.settle([replace(outcome(2, "pacs", DELIVERED), peer=OLD)])
    index.take_peers({"pacs": NEW}, T0 + 2000)
    _come(index, 2, "pacs")  # it is tried again
    _come(index, 3, "pacs")
    assert state(index, 3, "pacs") is READY


def _unwritten(index: Index, monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
    """The disk does not take the note of a peer."""

    def failing(*_: object) -> None:
        raise SpoolError("no")

    with monkeypatch.context() as patch:
        patch.setattr(index._db, "run_rows", failing)
        with pytest.raises(SpoolError):
            index.take_peers({"pacs": peer}, T0 + 2000)


def test_what_a_host_has_that_could_not_be_noted_is_sent_to_the_one_of_before(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the one that came back was taken for the one that had it."""
    _unwritten(index, monkeypatch, NEW)
    _come(index, 1, "pacs")
    index.settle([replace(outcome(1, "pacs", DELIVERED), peer=NEW)])
    assert index.take_peers({"pacs": OLD}, T0 + 3000) == ["pacs"]
    _come(index, 2, "pacs")
    assert state(index, 2, "pacs") is READY


@pytest.mark.parametrize("first", [True, False], ids=["the first", "another"])
@pytest.mark.parametrize("restarted", [True, False])
def test_what_a_host_has_that_could_not_be_noted_is_sent_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, first: bool, restarted: bool
) -> None:
    """Regression: nothing said that it was another's."""
    path = tmp_path / "index.db"
    index = Index.open(path)
    if not first:
        index.take_peers({"pacs": NEW}, T0)
    _unwritten(index, monkeypatch, OLD)
    _come(index, 1, "pacs")
    index.settle([replace(outcome(1, "pacs", DELIVERED), peer=OLD)])
    if restarted:
        index.close()
        index = Index.open(path)
    assert index.take_peers({"pacs": NEW}, T0 + 3000) == ["pacs"]
    _come(index, 2, "pacs")
    assert state(index, 2, "pacs") is READY
    index.close()


def test_an_older_index_takes_the_first_for_the_one_of_before(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)
    connection = sqlite.connect(path)
    STEPS[2](connection)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    index = Index.open(path)
    assert index.take_peers({"pacs": OLD}, T0) == []
    assert index.take_peers({"pacs": NEW}, T0) == ["pacs"]
    index.close()


@pytest.mark.parametrize("revived", [NEW, OLD], ids=["not the host of now", "the host of now"])
def test_what_repeats_one_that_was_under_way_to_the_host_of_before(
    index: Index, revived: tuple[str, int, str]
) -> None:
    _come(index, 1, "pacs")
    index.take_peers({"pacs": revived}, T0 + 2000)
    _come(index, 2, "pacs")
    _come(index, 3, "pacs")
    settled = index.settle([replace(outcome(1, "pacs", DELIVERED), peer=OLD)])
    again = READY if revived == NEW else DUPLICATE
    assert settled.revived == (revived == NEW)
    assert (state(index, 1, "pacs"), state(index, 2, "pacs")) == (DELIVERED, again)
    assert state(index, 3, "pacs") is DUPLICATE
    index.settle([replace(outcome(2, "pacs", DELIVERED), peer=NEW)])
    assert index.purge(T0 + 1e6, 10).count == 3


def test_what_repeats_one_that_the_host_of_before_has_still_to_commit(index: Index) -> None:
    """Nobody asks that host any more; what it has may be taken for delivered all the same."""
    add(index, (ref(1, crc=7), meta(1, "pacs", uid="1.9")))
    index.take_peers({"pacs": NEW}, T0 + 5)
    add(index, (ref(2, crc=7), meta(2, "pacs", uid="1.9")))
    assert state(index, 2, "pacs") is DUPLICATE
    index.settle([replace(outcome(1, "pacs", UNCOMMITTED), peer=OLD)])
    index.commitments.accept("pacs", "not asked any more", T0 + 9, 100)
    assert (state(index, 1, "pacs"), state(index, 2, "pacs")) == (DELIVERED, READY)


def test_what_the_host_of_before_has_is_redirected_all_the_same(index: Index) -> None:
    _come(index, 1, "pacs", "vna")
    _come(index, 2, "vna")
    index.settle([outcome(1, "vna", DELIVERED)])
    index.take_peers({"vna": NEW}, T0 + 2000)
    index.redirect(Filter(destination="pacs"), "vna", at=T0)
    assert (state(index, 1, "pacs"), state(index, 1, "vna")) == (DROPPED, READY)
    assert index.purge(T0 + 1e6, 10).count == 0
    index.settle([outcome(1, "vna", DELIVERED)])
    assert index.purge(T0 + 1e6, 10).count == 2


@pytest.mark.parametrize(
    "flipped", ["after_id = 0", "host = '10.0.0.3', after_id = 0"], ids=["number", "host"]
)
def test_what_the_host_of_before_has_stood_for_a_repeat_where_a_bit_had_flipped(
    tmp_path: Path, flipped: str
) -> None:
    """What is not what was written tells nothing: what was delivered by then is not relied on."""
    path = tmp_path / "index.db"
    with audited(path) as index:
        index.take_peers({"pacs": OLD}, T0)
        _come(index, 1, "pacs")
        index.settle([outcome(1, "pacs", DELIVERED)])
        index.take_peers({"pacs": NEW}, T0)
    with sqlite.connect(path) as connection:
        connection.execute(f"UPDATE peer SET {flipped}")
    connection.close()
    (tmp_path / "index.db-sealed").unlink()
    with audited(path) as index:
        index.take_peers({"pacs": ("10.0.0.3", *NEW[1:]) if "host" in flipped else NEW}, T0)
        _come(index, 2, "pacs")
        assert state(index, 2, "pacs") is READY
        _come(index, 3, "pacs")
        index.settle([outcome(2, "pacs", DELIVERED)])
    with audited(path) as index:  # and is so no longer
        index.take_peers({"pacs": ("10.0.0.3", *NEW[1:]) if "host" in flipped else NEW}, T0)
        _come(index, 4, "pacs")
        assert state(index, 4, "pacs") is DUPLICATE
