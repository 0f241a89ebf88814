"""What waits too long becomes a dead letter, whatever waits beside it."""

from pathlib import Path

import pytest

from router.spool import index_expire
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.plan import Plan
from router.spool.record import Position, RouteMeta
from tests.forward.test_with_index import entry

OLD, LATER, NOW = 1_000_000.0, 1_500_000.0, 2_000_000.0


def test_one_that_an_operator_tried_again_keeps_no_other_from_being_too_old(
    tmp_path: Path,
) -> None:
    """The index reads a page of a thousand at a time."""
    index = Index.open(tmp_path / "index.sqlite")
    try:
        old = [entry(number, OLD, "pacs") for number in range(1, 3001)]
        new = [entry(number, NOW - 5, "pacs") for number in range(3001, 3011)]
        index.add(
            [*old, *new],
            Position(1, 9_000_000),
            suppress_duplicates=False,
            same_bytes=lambda one, two: False,
        )
        index.settle([Outcome(7, "pacs", DeliveryState.DEAD, OLD, None, "refused")])
        assert index.retry(Filter(ids=(7,)), at=NOW - 20).count == 1
        count, oldest = _all(index)
        assert (count, oldest) == (2999, NOW - 20)
        assert len(index.lease("pacs", 10_000, NOW, ())) == 11
        again = index.expire("pacs", LATER, "older than a day", (), NOW)
        assert (again.count, again.after) == (0, None)
    finally:
        index.close()


def test_however_many_are_behind_a_gate_some_are_looked_through_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those among them that are not are found."""
    monkeypatch.setattr(index_expire, "_PAGE", 10)
    monkeypatch.setattr(index_expire, "_PAGES", 2)
    index = Index.open(tmp_path / "index.sqlite")
    plan = Plan(schedule="night").to_text()
    entries = []
    for number in range(1, 101):
        ref, meta = entry(number, OLD, "pacs")
        gated = number not in (3, 55, 100)
        routes = (RouteMeta("pacs", "all", 0, plan if gated else ""),)
        entries.append((ref, meta._replace(routes=routes)))
    try:
        index.add(
            entries, Position(1, 999_000), suppress_duplicates=False, same_bytes=lambda *_: False
        )
        found = index.expire("pacs", LATER, "old", (), NOW, 2)
        assert (found.count, found.after) == (1, 20)
        assert _all(index) == (2, None)
        assert len(index.queue_list(Filter(state=DeliveryState.DEAD), 10)) == 3
    finally:
        index.close()


def _all(index: Index) -> tuple[int, float | None]:
    count, after = 0, -1
    oldest: list[float] = []
    for _ in range(200):
        found = index.expire("pacs", LATER, "older than a day", (), NOW, after=after)
        count += found.count
        oldest += [] if found.oldest is None else [found.oldest]
        if found.after is None:
            return count, min(oldest, default=None)
        assert found.after > after
        after = found.after
    raise AssertionError("it has no end")
