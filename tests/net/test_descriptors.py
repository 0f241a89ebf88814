"""Peers that take all descriptors leave enough to go on with."""

import errno
import os
import resource
from collections.abc import Iterator

import pytest

from router.net import listener
from router.net.descriptors import descriptors_left
from tests.net.support import Runner, gate


@pytest.fixture
def few() -> Iterator[int]:
    """How many descriptors this process may have: a hundred beyond the highest in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 101 + max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _take_all(taken: list[int]) -> None:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))


def test_how_many_are_left_and_kept(few: int) -> None:
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] < max(map(int, os.listdir("/proc/self/fd"))) - 1:  # noqa: PTH208
        taken.append(os.open(os.devnull, os.O_RDONLY))  # no gaps below
    left, kept = descriptors_left()
    assert kept == min(256, few // 4)
    taken += [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    assert descriptors_left() == (left - 5, kept)
    with pytest.raises(OSError, match="Too many open files"):
        _take_all(taken)
    assert descriptors_left() == (0, kept)
    for descriptor in taken:
        os.close(descriptor)
    assert descriptors_left()[0] >= left


def test_the_one_that_waits_longest_makes_room(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 1000

    async def scenario() -> None:
        nonlocal left
        async with gate() as subject:
            idle = await subject.wire()
            standing = await subject.associated()
            await subject.listeners.until_open(2)
            left = 30  # of 40 that are kept
            newcomer = await subject.associated()
            await idle.ended()
            await idle.close()
            assert subject.observer.rejected == {"descriptors": 1}
            assert len(subject.listeners.associations) == 2
            await standing.release()
            await newcomer.release()

    monkeypatch.setattr(listener, "descriptors_left", lambda: (left, 40))
    run(scenario)
    (line,) = run.said("association refused")
    assert "only 30 file descriptors are left: raise LimitNOFILE" in line["why"]


def test_nobody_is_let_in_on_the_last_descriptors(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 1000

    async def scenario() -> None:
        nonlocal left
        async with gate() as subject:
            standing = await subject.associated()
            left = 19
            turned = await subject.wire()
            await turned.ended()
            await turned.close()
            assert subject.observer.rejected == {"descriptors": 1}
            await standing.release()
            left = 1000
            await (await subject.associated()).release()

    monkeypatch.setattr(listener, "descriptors_left", lambda: (left, 40))
    run(scenario)
    (line,) = run.said("connection refused")
    assert "only 19 file descriptors are left: raise LimitNOFILE" in line["event"]


@pytest.mark.parametrize(
    ("number", "none"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.ENOENT, False)]
)
def test_any_error_was_taken_for_no_descriptors(
    monkeypatch: pytest.MonkeyPatch, number: int, none: bool
) -> None:
    """Regression: without a /dev/null the gateway stopped listening for good."""

    def fail(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    left, kept = descriptors_left()
    assert left == (0 if none else kept)
