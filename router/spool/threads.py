"""Threads that are there before anybody needs them.

Owns the wait until they all run.  An executor starts each of its threads when there is first
something for it; where none can be started then (``TasksMax=`` of systemd, RLIMIT_AS), it raises
an error and has the work in its line all the same.  At the start that is a start that fails.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

from router.spool.errors import SpoolError

_LIMIT = 30.0
"""Seconds until all run; on a machine that runs at all it takes a millisecond."""


def start_all(executor: ThreadPoolExecutor, count: int, what: str) -> None:
    """Start the `count` threads that `executor` may have; it must have had nothing to do before.

    Blocking.  Raises SpoolError, which names them as `what`, when they cannot be started; the
    executor is shut down then.
    """
    met = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            executor.submit(met.wait, _LIMIT)
        met.wait(_LIMIT)
    except (RuntimeError, MemoryError) as error:
        met.abort()
        executor.shutdown(wait=False, cancel_futures=True)
        raise SpoolError(
            f"no thread can be started for {what} ({error or type(error).__name__}); allow the"
            " process more threads or memory (systemd: TasksMax=, LimitAS=; ulimit -u, -v)"
        ) from error
