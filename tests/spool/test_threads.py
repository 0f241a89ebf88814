"""Threads that run before they are needed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from router.spool import threads
from router.spool.errors import SpoolError
from router.spool.threads import start_all


def test_all_threads_of_an_executor_run_afterwards_and_no_more_are_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ThreadPoolExecutor(3, "some") as executor:
        start_all(executor, 3, "some work")
        there = [t for t in threading.enumerate() if t.name.startswith("some_")]
        assert len(there) == 3

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        met = threading.Barrier(3)
        waiting = [executor.submit(met.wait, 5) for _ in range(3)]
        assert {task.result(5) for task in waiting} == {0, 1, 2}


@pytest.mark.parametrize("after", [0, 2])
def test_an_executor_without_threads_is_an_error_that_says_what_to_do(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if len(started) == after:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    executor = ThreadPoolExecutor(3, "some")
    with pytest.raises(SpoolError, match=r"some work \(can't start new thread\); .*TasksMax="):
        start_all(executor, 3, "some work")
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(print)
    for thread in started:  # none waits for the others any more
        thread.join(5)
        assert not thread.is_alive()


def test_threads_that_do_not_come_are_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_LIMIT", 0.05)
    with ThreadPoolExecutor(1, "some") as executor, pytest.raises(SpoolError, match="for some"):
        start_all(executor, 2, "some work")
