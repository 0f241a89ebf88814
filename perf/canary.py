"""How late a process that does nothing is woken, beside the one that is measured.

Owns a thread that sleeps and notes by how much it overslept.  What it waited for was the machine:
other processes on the cores, or another guest of the host.  An event loop that stood still for no
longer than that did not stand still by itself.
"""

import threading
import time
from types import TracebackType
from typing import Self

_SLEEP = 0.002
"""Seconds; so that a second gives some hundreds of samples, and the thread costs little."""


class Canary:
    """A context manager; `late` may be asked afterwards.

    It belongs into a process that has nothing else to do meanwhile: what that computes would count
    as the machine's.
    """

    def __init__(self) -> None:
        self._late: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sing, name="canary", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def late(self, quantile: float) -> float:
        """Seconds by which it was woken too late, at that quantile (0 to 1); 0.0 of no sample."""
        found = sorted(self._late)
        return found[min(len(found) - 1, int(quantile * len(found)))] if found else 0.0

    def _sing(self) -> None:
        while not self._ended.is_set():
            due = time.perf_counter() + _SLEEP
            time.sleep(_SLEEP)
            self._late.append(time.perf_counter() - due)
