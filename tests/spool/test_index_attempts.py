"""What is kept of attempts at deliveries, of pauses, and of an hour."""

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from router.spool import sqlite
from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index import Filter, Index
from router.spool.index_attempts import ATTEMPTS_KEPT
from router.spool.index_hour import HOUR
from router.spool.index_hours import account_since
from router.spool.index_seal import unseal
from router.spool.index_types import Attempt
from tests.spool import index_version_2
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DUPLICATE,
    READY,
    T0,
    add,
    audited,
    fill,
    meta,
    outcome,
    places,
    ref,
)

NOON = T0 - T0 % HOUR


def _attempts(index: Index, number: int) -> tuple[Attempt, ...]:
    row = index.instance(number)
    assert row is not None
    return row.attempts


# -- attempts


def test_every_answer_of_a_delivery_is_kept(index: Index) -> None:
    fill(index, [1], "pacs", "vna")
    first = outcome(1, "pacs", READY, at=T0 + 5, status=0xA700, reason="full\0", due_at=T0 + 9)
    index.settle([replace(first, association="out-7", seconds=0.25)])
    index.settle([outcome(1, "vna", DEAD, at=T0 + 6, reason="no context")])
    index.settle([replace(outcome(1, "pacs", DELIVERED, at=T0 + 9), association="out-8")])
    assert _attempts(index, 1) == (
        Attempt("pacs", T0 + 5, 0.25, "out-7", READY, 0xA700, "full\ufffd"),
        Attempt("vna", T0 + 6, None, "", DEAD, None, "no context"),
        Attempt("pacs", T0 + 9, None, "out-8", DELIVERED, None, ""),
    )


def test_a_delivery_at_the_first_try_costs_no_row(index: Index, tmp_path: Path) -> None:
    fill(index, [1, 2], "pacs")
    done = replace(outcome(1, "pacs", DELIVERED, status=0), association="out-7", seconds=0.1)
    index.settle([done, replace(done, instance_id=2, status=0xB000, reason="coerced")])
    index.settle([done])  # settled before: no attempt of this delivery
    assert _attempts(index, 1) == _attempts(index, 2) == ()
    connection = sqlite.connect(tmp_path / "index.db")
    assert connection.execute("SELECT count(*) FROM attempt").fetchone() == (0,)
    connection.close()


def test_what_was_not_asked_at_all_is_no_attempt(index: Index) -> None:
    fill(index, [1], "pacs")
    index.settle([outcome(1, "pacs", READY, attempted=False, due_at=T0 + 9)])
    assert _attempts(index, 1) == ()
    index.settle([outcome(1, "pacs", READY, attempted=False, status=0xA700, due_at=T0 + 9)])
    assert len(_attempts(index, 1)) == 1, "the destination said so, if only to a probe"


def test_the_latest_attempts_are_kept(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    for n in range(ATTEMPTS_KEPT + 5):
        index.settle([outcome(i, "pacs", READY, at=T0 + n, due_at=T0) for i in (1, 2)])
    times = [attempt.at for attempt in _attempts(index, 1)]
    assert times == [T0 + n for n in range(5, ATTEMPTS_KEPT + 5)]
    twice = [outcome(2, "pacs", READY, at=T0 + 99 + n, due_at=T0) for n in (0, 1)]
    index.settle(twice)
    assert [a.at for a in _attempts(index, 2)][-2:] == [T0 + 99, T0 + 100]
    assert len(_attempts(index, 2)) == ATTEMPTS_KEPT


def test_attempts_go_with_their_instance(index: Index, tmp_path: Path) -> None:
    fill(index, [1, 2], "pacs")
    index.settle([outcome(n, "pacs", READY, due_at=T0) for n in (1, 2)])
    index.settle([outcome(1, "pacs", DELIVERED, at=T0 + 5)])
    assert index.purge(T0 + 5, 10).count == 1
    connection = sqlite.connect(tmp_path / "index.db")
    rows = connection.execute("SELECT DISTINCT instance_id FROM attempt").fetchall()
    connection.close()
    assert rows == [(2,)]


# -- pauses


def test_a_pause_outlives_a_restart_and_is_on_record(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        assert index.pause("pacs", "upgrade", at=T0, who="eva")
        assert not index.pause("pacs", "again", at=T0 + 1, who="ada")
    with audited(path) as index:
        (pause,) = index.pauses()
        assert (pause.destination, pause.reason, pause.who, pause.at) == (
            "pacs",
            "upgrade",
            "eva",
            T0,
        )
        assert index.resume("pacs", at=T0 + 2, who="ada")
        assert not index.resume("pacs", at=T0 + 3)
        assert index.pauses() == []
        events = index.events(9)
        assert [(e.action, e.who, e.count) for e in events] == [
            ("resume", "ada", 0),
            ("pause", "eva", 0),
        ]
        assert '"because": "upgrade"' in events[1].detail


# -- since


def test_a_clock_that_was_ahead_makes_no_account_forget(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, [1, 2, 3], "pacs")
        index.settle([outcome(1, "pacs", DELIVERED, at=5e9)])
        index.settle([outcome(2, "pacs", DELIVERED, at=T0)])
        # Without room, both go whatever their time.
        assert index.purge(9e9, 10).count == 2
        found = account_since(path, T0 - HOUR)
        assert found.known_from is None or found.known_from < time.time() - 30 * 86400
        index.settle([outcome(3, "pacs", DELIVERED, at=T0)])
    with closing(sqlite.connect(path)) as rows, rows:
        rows.execute("UPDATE meta SET value = 1300000 WHERE key = 'hours_forgotten'")
    unseal(path)
    with audited(path) as index:
        index.purge(9e9, 10)
        known_from = account_since(path, T0 - HOUR).known_from
        assert known_from is not None
        assert known_from <= time.time() + HOUR, "from now on it counts again"


def test_an_account_since_an_hour_counts_rows_and_what_was_purged(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, [1, 2], "pacs")  # T0 + 1, T0 + 2
        later = [(ref(n), meta(n, "pacs", "vna", at=NOON + 2 * HOUR)) for n in (3, 4, 5)]
        add(index, *later, (ref(6), meta(6, at=NOON + 2 * HOUR)))
        index.settle([outcome(n, "pacs", DELIVERED) for n in (1, 3, 4)])
        index.settle([outcome(3, "vna", DELIVERED), outcome(4, "vna", DEAD)])
        index.purge(T0 + 1e6, 10)  # 1 and 3
        found = account_since(path, NOON + 2 * HOUR + 5)
        assert (found.since, found.known_from) == (NOON + 2 * HOUR, None)
        assert (found.received, found.routed, found.held, found.purged) == (4, 3, 1, 1)
        pacs, vna = found.destinations["pacs"], found.destinations["vna"]
        assert (pacs.received, pacs.delivered, pacs.waiting) == (3, 2, 1)
        assert (vna.received, vna.delivered, vna.dead, vna.waiting) == (3, 1, 1, 1)
        assert found.balanced
        whole = account_since(path, 0.0)
        assert (whole.received, whole.purged) == (6, 2)
        assert whole.destinations["pacs"] == index.account().destinations["pacs"]
        assert account_since(path, NOON + 3 * HOUR).destinations == {}


def test_an_instance_that_vanished_is_a_difference(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path)
    fill(index, [1, 2], "pacs")
    index.close()
    connection = sqlite.connect(path)
    connection.execute("DELETE FROM delivery WHERE instance_id = 2")
    connection.execute("DELETE FROM instance WHERE id = 2")
    connection.close()
    found = account_since(path, T0)
    assert not found.balanced
    assert found.differences == {"instances": 1}


def test_counts_of_long_ago_are_forgotten_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, [1, 9], "pacs")
        index.settle([outcome(1, "pacs", DELIVERED), outcome(9, "pacs", DEAD)])
        index.purge(T0 + 1e6, 10)
        late = T0 + 40 * 24 * HOUR
        add(index, (ref(12), meta(12, "pacs", at=late)))
        index.settle([outcome(12, "pacs", DELIVERED, at=late)])
        index.purge(late, 10)
        add(index, (ref(13), meta(13, "pacs", at=late)))
        found = account_since(path, T0)
        assert (found.received, found.purged) == (2, 1)
        assert found.known_from is not None
        assert T0 < found.since == found.known_from < late
        assert found.balanced


def test_an_index_of_an_older_version_counts_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)
    with audited(path) as index:
        assert index.pauses() == []
        assert _attempts(index, 11) == ()
        assert places(index, 9) == {"pacs": DUPLICATE}
        found = account_since(path, T0 - HOUR)
        assert found.received == 6
        assert found.known_from is not None
        assert found.known_from > T0 + 1e7, "what was purged before it was brought up is unknown"
        assert found.balanced


def test_an_index_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="unable to open"):
        account_since(tmp_path / "none", 0)
    (tmp_path / "other").write_bytes(b"no database at all" * 100)
    with pytest.raises(IndexDamaged):
        account_since(tmp_path / "other", 0)
    Index.open(tmp_path / "old").close()
    connection = sqlite.connect(tmp_path / "old")
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(SpoolError, match="schema version 3"):
        account_since(tmp_path / "old", 0)


def test_a_retry_keeps_what_was_answered_before(index: Index) -> None:
    fill(index, [1], "pacs")
    index.settle([outcome(1, "pacs", DEAD, at=T0, status=0xC000, reason="no")])
    index.retry(Filter(), at=T0 + 5)
    index.settle([outcome(1, "pacs", DEAD, at=T0 + 9, status=0xC001, reason="no again")])
    assert [a.status for a in _attempts(index, 1)] == [0xC000, 0xC001]
