"""What waits too long becomes a dead letter, whatever waits beside it."""

from pathlib import Path

from router.spool.index import Index
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.record import Position
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
        count, more, oldest = 0, True, None
        while more:
            found = index.expire("pacs", LATER, "older than a day", (), NOW)
            count, more, oldest = count + found.count, found.more, found.oldest
        assert (count, oldest) == (2999, NOW - 20)
        assert len(index.lease("pacs", 10_000, NOW, ())) == 11
        again = index.expire("pacs", LATER, "older than a day", (), NOW)
        assert (again.count, again.more) == (0, False)
    finally:
        index.close()
