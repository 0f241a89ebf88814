"""Where finished log lines go.

Owns the stream and, in the background form, the thread that writes to it: standard error may be
a pipe whose reader stands still, and the event loop must not stand still with it (promise 5).
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol, TextIO


class Sink(Protocol):
    """Takes whole lines, from any thread."""

    def write(self, line: str) -> None:
        """One line, without its end."""
        ...

    def close(self, timeout: float = 2.0) -> None:
        """Write out what is waiting, for at most ``timeout`` seconds."""
        ...


class DirectSink:
    """Writes at once; for commands that run and end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        """Written and flushed on return; a reader that went away is no failure of the caller."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self, timeout: float = 2.0) -> None:
        """Nothing is waiting, ever."""


class BackgroundSink:
    """Hands lines to a thread; `write` never waits.

    At most ``limit`` lines wait: a line over it is dropped and counted by ``on_drop``.
    """

    def __init__(
        self, stream: TextIO, *, limit: int = 10_000, on_drop: Callable[[], None] | None = None
    ) -> None:
        self._stream = stream
        self._limit = limit
        self._on_drop = on_drop
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """The line is written soon, or dropped when the reader of the stream stands still."""
        if self._closed and not self._thread.is_alive():
            DirectSink(self._stream).write(line)
        elif not self._closed and self._lines.qsize() < self._limit:
            self._lines.put(line)
        elif self._on_drop is not None:
            self._on_drop()

    def close(self, timeout: float = 2.0) -> None:
        """Write out what is waiting; gives up after ``timeout`` seconds.

        Lines that come later are written at once, or dropped when the stream still stands.
        """
        self._closed = True
        self._lines.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        more = True
        while more:
            lines = [self._lines.get()]
            while len(lines) < 256:
                try:
                    lines.append(self._lines.get_nowait())
                except queue.Empty:
                    break
            more = None not in lines
            text = "".join(f"{line}\n" for line in lines if line is not None)
            # There is nowhere to complain to about the stream of the complaints.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
