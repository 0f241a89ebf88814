"""When a study or a series is complete.

Owns the rules of completeness: quiet time, open associations, what an archive expects, and how
clocks that are set are borne.  Must not know the index, sockets or tasks.

Quiet time runs by the steady clock from the moment at which an arrival was seen; the wall clock
tells only how long ago that was when it is seen first, and never more than could be.  So neither
a clock set forward declares a study complete that is still arriving, nor one set back holds it.
"""

from dataclasses import dataclass

from router.spool.index_types import Gate

FIRST_QUESTION, LAST_QUESTION = 15.0, 300.0
"""Seconds between two questions about one study: at first, and at most."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``complete`` and why; or what it waits for, and for how many seconds at least (None: until
    something happens).  ``ask``: a question to the archive is due."""

    complete: bool
    why: str
    seconds: float | None = None
    ask: bool = False


class Vigil:
    """One gate of a study or series; ``now`` is of a steady clock throughout."""

    __slots__ = ("_ask_at", "_asked", "_seen_at", "_silent", "_trouble", "came", "expected", "gate")

    def __init__(self, gate: Gate, wall: float, now: float) -> None:
        """A gate that is there after a start: its last arrival may be long ago."""
        self.gate = gate
        self._arrived(max(0.0, wall - gate.last_at), now)

    @classmethod
    def begun(cls, gate: Gate, wall: float, now: float, looked_at: float) -> "Vigil":
        """A gate that is new since the look at all of them at ``looked_at``."""
        vigil = cls(gate, wall, now)
        vigil._arrived(_since(gate, wall, now, looked_at), now)
        return vigil

    def look(self, gate: Gate, wall: float, now: float, looked_at: float) -> None:
        """The index tells of it anew; the last look was at ``looked_at``."""
        before, self.gate = self.gate, gate
        came = gate.instances + gate.earlier > before.instances + before.earlier
        if came or gate.last_at != before.last_at or gate.supplement != before.supplement:
            self._arrived(_since(gate, wall, now, looked_at), now)

    def _arrived(self, silent: float, now: float) -> None:
        self._silent, self._seen_at = silent, now
        # What the archive said before is not the answer of now: it may know of more as well.
        self.expected: int | None = None
        self.came = 0
        self._trouble = ""
        self._asked = 0
        self._ask_at = now

    def silent(self, now: float) -> float:
        """Seconds since the last arrival."""
        return self._silent + now - self._seen_at

    def answered(self, expected: int | None, came: int, now: float) -> None:
        """The archive knows of ``expected`` instances (None: not of the study), ``came`` came."""
        self.expected, self.came = expected, came
        self._trouble = "" if expected is not None else "it does not know of any"
        self._ask_later(now)

    def not_answered(self, reason: str, now: float) -> None:
        """The archive could not be asked."""
        self._trouble = reason
        self._ask_later(now)

    def _ask_later(self, now: float) -> None:
        self._ask_at = now + min(LAST_QUESTION, FIRST_QUESTION * 2.0 ** min(self._asked, 10))
        self._asked += 1

    def judge(self, now: float, busy: str) -> Verdict:
        """Whether it is complete; ``busy`` says who may still send to it, "" when nobody."""
        plan, silent = self.gate.plan, self.silent(now)
        if silent < plan.quiet:
            return Verdict(False, "it is not quiet for long enough", plan.quiet - silent)
        if busy:
            return Verdict(False, busy)
        # What comes after the study was sent is no reason to wait for an archive again.
        if not plan.expect or self.gate.supplement:
            return Verdict(True, f"nothing came for {plan.quiet:g} s")
        if self.expected is not None and self.came >= self.expected:
            return Verdict(True, f"{plan.expect} knows of {self.expected}, {self.came} came")
        left = plan.quiet + plan.wait - silent
        if left <= 0:
            return Verdict(True, f"waited {plan.wait:g} s for {plan.expect}: {self._missing()}")
        why = f"{plan.expect}: {self._missing()}"
        if now >= self._ask_at:
            return Verdict(False, why, left, ask=True)
        return Verdict(False, why, min(left, self._ask_at - now))

    def _missing(self) -> str:
        if self._trouble or self.expected is None:
            return self._trouble or "it was not asked yet"
        return f"it knows of {self.expected}, {self.came} came"


def _since(gate: Gate, wall: float, now: float, looked_at: float) -> float:
    """Seconds since an arrival that was not there at the last look."""
    return min(max(0.0, wall - gate.last_at), max(0.0, now - looked_at))
