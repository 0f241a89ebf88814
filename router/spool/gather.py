"""Jobs of one turn of the event loop, handed to the committer together.

Owns what was submitted in this turn and not passed on yet.  Used on the event loop's thread, and
by whoever closes the spool once nothing is written any more.

A job that is passed on at once wakes the committer's thread while the loop is still reading what
the others sent: both then contend for the interpreter, and each instance of the turn is written by
itself.  At the end of the turn the loop is about to wait, and one write makes all of them durable.
"""

from collections.abc import Callable

from router.spool.committer import Job

_ENOUGH = 16
"""Jobs that are one write worth making: where hundreds send, a turn of the loop takes its time."""


class Gatherer:
    """Passes jobs on to `submit_all`, in their order.

    `later` calls back when the loop has done what it is doing, as ``loop.call_soon``.
    """

    def __init__(self, submit_all: Callable[[list[Job]], None]) -> None:
        self._submit_all = submit_all
        self._jobs: list[Job] = []
        self.later: Callable[[Callable[[], None]], object] | None = None
        """None passes each job on at once."""

    def add(self, job: Job) -> None:
        """Pass `job` on, with those that come in the same turn."""
        if self.later is None:
            self._submit_all([job])
            return
        if not self._jobs:
            self.later(self.flush)
        self._jobs.append(job)
        if len(self._jobs) >= _ENOUGH:
            self.flush()

    def flush(self) -> None:
        """Pass on what has gathered, if anything."""
        jobs, self._jobs = self._jobs, []
        if jobs:
            self._submit_all(jobs)
