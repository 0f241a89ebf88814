"""When a study or a series is complete.

Owns the rules of completeness: quiet time, open associations, what an archive expects, and how
clocks that are set are borne.  Must not know the index, sockets or tasks.

Quiet time runs by the steady clock from the moment at which an arrival was seen; the wall clock
tells only how long ago that was when it is seen first, and never more than could be.  So neither
a clock set forward declares a study complete that is still arriving, nor one set back holds it.

While we were down nobody could send, so that time is no quiet: after a start some is waited for
anew.  An association that never ends holds a study for as long as an archive would, not for ever.
"""

from dataclasses import dataclass
from math import inf

from router.spool.index_types import Gate

FIRST_QUESTION, LAST_QUESTION = 15.0, 300.0
"""Seconds between two questions about one study: at first, and at most."""
AFTER_A_START = 60.0
"""Seconds of quiet that must be seen after a start, when the quiet time is not shorter."""


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

    __slots__ = (
        "_ask_at",
        "_asked",
        "_not_before",
        "_seen_at",
        "_silent",
        "_trouble",
        "asked_at",
        "came",
        "expected",
        "gate",
    )

    def __init__(self, gate: Gate, wall: float, now: float) -> None:
        """A gate that is there after a start: its last arrival may be long ago."""
        self.gate = gate
        self.asked_at = -inf
        """When the archive was asked last; of the steady clock."""
        self._arrived(max(0.0, wall - gate.last_at), now)
        self._not_before = now + min(gate.plan.quiet, AFTER_A_START)

    @classmethod
    def begun(cls, gate: Gate, wall: float, now: float, looked_at: float) -> "Vigil":
        """A gate that is new since the look at all of them at ``looked_at``."""
        vigil = cls(gate, wall, now)
        vigil._arrived(_since(gate, wall, now, looked_at), now)
        return vigil

    @classmethod
    def taken_up(cls, gate: Gate, wall: float, now: float, began: float, set_at: float) -> "Vigil":
        """A gate that was there before, but not in mind.  We began at ``began``; before
        ``set_at`` the wall clock was another, so no silence is counted from before then."""
        vigil = cls(gate, wall, now)
        vigil._silent = min(vigil._silent, max(0.0, now - set_at))
        vigil._not_before = began + min(gate.plan.quiet, AFTER_A_START)
        return vigil

    def look(
        self,
        gate: Gate,
        wall: float,
        now: float,
        looked_at: float,
        elsewhere: "Vigil | None" = None,
    ) -> None:
        """The index tells of it anew; the last look was at ``looked_at``.  Of what was behind the
        gate of ``elsewhere`` some may be behind this one now."""
        before, self.gate = self.gate, gate
        came = gate.instances + gate.earlier > before.instances + before.earlier
        if not came and gate.last_at <= before.last_at and gate.supplement == before.supplement:
            return
        latest = before.last_at if elsewhere is None else elsewhere.gate.last_at
        if elsewhere is None or gate.last_at > max(before.last_at, latest):
            self._arrived(_since(gate, wall, now, looked_at), now)
        elif latest > before.last_at:
            self.go_on(elsewhere)

    def go_on(self, elsewhere: "Vigil") -> None:
        """What was behind that one's gate is behind this one's now: it moved, nothing came."""
        for name in _KEPT:
            setattr(self, name, getattr(elsewhere, name))

    def _arrived(self, silent: float, now: float) -> None:
        self._silent, self._seen_at = silent, now
        self._not_before = now
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

    def due(self, now: float) -> bool:
        """Whether a question to the archive is due, as far as can be told without `judge`."""
        quiet, silent = self.gate.plan.quiet, self.silent(now)
        return now >= self._ask_at and quiet <= silent < quiet + self.gate.plan.wait

    def _ask_later(self, now: float) -> None:
        self.asked_at = now
        self._ask_at = now + min(LAST_QUESTION, FIRST_QUESTION * 2.0 ** min(self._asked, 10))
        self._asked += 1

    def judge(self, now: float, busy: str) -> Verdict:
        """Whether it is complete; ``busy`` says who may still send to it, "" when nobody."""
        plan, silent = self.gate.plan, self.silent(now)
        noisy = max(plan.quiet - silent, self._not_before - now)
        if noisy > 0:
            return Verdict(False, "it is not quiet for long enough", noisy)
        left = plan.quiet + plan.wait - silent
        if busy and left > 0:
            return Verdict(False, busy, left)
        although = f", although {busy}" if busy else ""
        # What comes after the study was sent is no reason to wait for an archive again.
        if not plan.expect or self.gate.supplement:
            silence = plan.quiet + plan.wait if busy else plan.quiet
            return Verdict(True, f"nothing came for {silence:g} s{although}")
        if self.expected is not None and self.came >= self.expected:
            known = f"{plan.expect} knows of {self.expected}, {self.came} came"
            return Verdict(True, known + although)
        why = f"{plan.expect}: {self._missing()}"
        if left <= 0:
            return Verdict(True, f"waited {plan.wait:g} s for {why}{although}")
        if now >= self._ask_at:
            return Verdict(False, why, left, ask=True)
        return Verdict(False, why, min(left, self._ask_at - now))

    def _missing(self) -> str:
        if self._trouble or self.expected is None:
            return self._trouble or "it was not asked yet"
        return f"it knows of {self.expected}, {self.came} came"


_KEPT = tuple(name for name in Vigil.__slots__ if name != "gate")


def _since(gate: Gate, wall: float, now: float, looked_at: float) -> float:
    """Seconds since an arrival that was not there at the last look."""
    return min(max(0.0, wall - gate.last_at), max(0.0, now - looked_at))
