"""What is submitted in one turn of the loop is committed together, in order, and all of it."""

from collections.abc import Callable
from pathlib import Path

from router.spool.committer import GROUP_LIMIT, Committer, Job
from router.spool.gather import Gatherer
from router.spool.recovery import generation_of
from router.spool.segments import SegmentTable
from tests.spool.spool_samples import KIB, Loop, meta, payload


class Turns:
    """A loop that calls back when it is told that its turn is over."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def later(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def end(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


def _job(number: int, done: Callable[[Job], None] = lambda job: None) -> Job:
    data = payload(number, 100)
    return Job(number, meta(number).to_bytes(), [memoryview(data)], len(data), done)


def _numbers(passed: list[list[Job]]) -> list[list[int]]:
    return [[job.id for job in jobs] for jobs in passed]


def test_without_a_loop_each_is_passed_on_at_once() -> None:
    passed: list[list[Job]] = []
    gatherer = Gatherer(passed.append)
    gatherer.add(_job(1))
    gatherer.add(_job(2))
    assert _numbers(passed) == [[1], [2]]


def test_those_of_one_turn_go_together_and_in_order() -> None:
    passed: list[list[Job]] = []
    turns = Turns()
    gatherer = Gatherer(passed.append)
    gatherer.later = turns.later
    gatherer.add(_job(1))
    gatherer.add(_job(2))
    assert passed == []
    assert len(turns.due) == 1
    turns.end()
    assert _numbers(passed) == [[1, 2]]
    gatherer.add(_job(3))
    turns.end()
    assert _numbers(passed) == [[1, 2], [3]]


def test_a_long_turn_does_not_hold_many_back() -> None:
    passed: list[list[Job]] = []
    turns = Turns()
    gatherer = Gatherer(passed.append)
    gatherer.later = turns.later
    for number in range(1, 41):
        gatherer.add(_job(number))
    assert _numbers(passed) == [list(range(1, 17)), list(range(17, 33))]
    turns.end()
    assert _numbers(passed)[2:] == [list(range(33, 41))]


def test_a_flush_leaves_nothing_for_the_end_of_the_turn() -> None:
    passed: list[list[Job]] = []
    turns = Turns()
    gatherer = Gatherer(passed.append)
    gatherer.later = turns.later
    gatherer.add(_job(1))
    gatherer.flush()
    turns.end()
    gatherer.flush()
    assert _numbers(passed) == [[1]]


def test_more_than_a_group_takes_is_committed_all_the_same(tmp_path: Path) -> None:
    loop = Loop()
    segments = SegmentTable(tmp_path, 4096 * KIB, 0)
    segments.load(generation_of)
    segments.refill(1)
    groups: list[int] = []
    committer = Committer(segments, loop.post, lambda count, seconds: groups.append(count))
    told: list[int] = []
    count = GROUP_LIMIT + 10
    committer.submit_all([_job(n, lambda job: told.append(job.id)) for n in range(1, count + 1)])
    committer.start()
    try:
        loop.run_until(lambda: len(told) >= count)
    finally:
        committer.stop()
        segments.close()
    assert told == list(range(1, count + 1))
    assert max(groups) <= GROUP_LIMIT
