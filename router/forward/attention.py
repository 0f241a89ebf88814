"""The gates that the gatekeeper has in mind: never more than a bound, however many are shut.

Owns which these are from one look at the index to the next, their vigils, and what a clock that
is set means for those that are taken up.  Must not know how a gate is opened, nor schedules.

Up to `MOST` gates are all in mind.  When more are shut, those are that are to be quiet soonest,
and of those that should be quiet already, but wait for an association or for an archive, one page
after the other.  What is dropped is in the index still; of what is taken up again the silence is
known by its last arrival, and what an archive said of it is asked anew.
"""

import asyncio
from collections.abc import Callable
from math import inf

from router.forward.ports import GateIndex
from router.forward.vigil import FIRST_QUESTION, Vigil
from router.spool.index_soon import CLASSES, FIRST, Class, Look, Soon
from router.spool.index_types import Gate, GateKind
from router.spool.plan import Plan

MOST = 1200
"""Gates in mind; and those of schedules, of which there are as many as the configuration has."""
AT_ONCE = 128
"""Gates that are gone through before others have their turn."""
_EACH, _SOONEST = 250, 450
_SHARE, _SHARE_OPENING, _LATEST = 20, 4, 10.0
"""When more are shut than are in mind the index is asked at most once in this many times of what it
takes, or in so many while some are opened, but again after so many seconds."""
_TURN_THE_PAGE = 2.0
"""Seconds after which others are looked at of those that wait for an association at most."""
_SET = 1.0
"""Seconds by which the wall clock may gain or lose between two looks, as it is kept right; when it
is more, somebody set it."""
_TIE = 0.001
"""Seconds by which a time may differ from the same time in the index."""


class Attention:
    """``clock`` gives seconds since the epoch, ``steady`` those of a clock that nobody sets.

    ``gates`` are those in mind, ``vigils`` are of those that are of no schedule, by id.
    ``stale`` is to be set when the index may know of something else; it is not asked before
    ``not_before``, of the steady clock.
    """

    def __init__(
        self, index: GateIndex, clock: Callable[[], float], steady: Callable[[], float]
    ) -> None:
        self._index = index
        self._clock = clock
        self._steady = steady
        self.gates: list[Gate] = []
        self.vigils: dict[int, Vigil] = {}
        self.stale = True
        self.not_before = -inf
        self._took = 0.0
        self._look = Look(0.0, whole=MOST, each=_EACH, soonest=_SOONEST)
        self._answer = Soon([])
        self._looked_at: float | None = None
        self._began = 0.0
        self._ahead: float | None = None
        """The wall clock's lead on the steady one."""
        self._set_at = -inf
        self._page_at = self._pages_from = -inf
        """Since when an archive is asked about those in mind, and about the first page."""
        self._all_asked = False

    async def look(self) -> None:
        """Asks the index, when there may be something else.  Raises SpoolError."""
        at = self._steady()
        self._mind_the_clock(at)
        if not self.stale or at < self.not_before:
            return
        look = self._look.onward(self._answer, self._turned(at), self._clock())
        self.stale = False
        try:
            answer = await self._index.soon_gates(look)
        except BaseException:
            self.stale = True
            raise
        now, wall = self._steady(), self._clock()
        self._took = now - at
        if self._looked_at is None:
            self._began = now
        moved = self._moved(look, answer)
        vigils: dict[int, Vigil] = {}
        for number, gate in enumerate(answer.gates, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            if gate.kind != "schedule":
                elsewhere = moved.get((gate.kind, gate.key, gate.plan))
                vigils[gate.id] = self._vigil(gate, elsewhere, wall, now)
        self.gates, self.vigils = list(answer.gates), vigils
        self._look, self._answer, self._looked_at = look, answer, at
        self.not_before = -inf

    @property
    def whole(self) -> bool:
        """Whether all that are shut are in mind."""
        return self._answer.whole

    def drop(self, gate: Gate) -> None:
        """It was opened."""
        if gate in self.gates:
            self.gates.remove(gate)
            self.vigils.pop(gate.id, None)

    def judged(self, *, asking: bool, opened: bool) -> float:
        """To be called when each in mind had its turn; ``asking``: for one of them a question to
        its archive is due; ``opened``: one was complete.

        How many seconds later others are to be taken up at the latest, though nothing comes.
        """
        answer, after = self._answer, self._look.after
        if answer.whole:
            return inf
        # When some were opened, others wait for a look.
        share = _SHARE_OPENING if opened else _SHARE
        self.not_before = (self._looked_at or 0.0) + min(share * self._took, _LATEST)
        self._all_asked = not asking
        seconds = answer.until - self._clock()
        now = self._steady()
        several = [end or place > FIRST for end, place in zip(answer.ends, after, strict=True)]
        if several[0] or several[1]:
            seconds = min(seconds, (self._looked_at or now) + _TURN_THE_PAGE - now)
        if several[2]:
            seconds = min(seconds, self._page_lasts(now))
        if seconds <= 0:
            self.stale = True
        return max(seconds, 0.0)

    # -- whom to take up ---------------------------------------------------------------------

    def _turned(self, now: float) -> tuple[Class, ...]:
        """The classes of which the next page is to be had."""
        if self._answer.whole:
            self._page_at = self._pages_from = now
            return CLASSES
        if self._page_lasts(now) > 0:
            return CLASSES[:2]
        self._page_at = now
        if self._answer.ends[2] is None:
            self._pages_from = now
        return CLASSES

    def _page_lasts(self, now: float) -> float:
        """Seconds for which archives are asked about those in mind: until it was done, but not
        for long, for the archive may be down; and not about the first page again at once."""
        lasts = 0.0 if self._all_asked else self._page_at + FIRST_QUESTION - now
        if self._answer.ends[2] is None:
            lasts = max(lasts, self._pages_from + FIRST_QUESTION - now)
        return lasts

    # -- what is known of them ---------------------------------------------------------------

    def _mind_the_clock(self, now: float) -> None:
        ahead = self._clock() - now
        if self._ahead is not None and abs(ahead - self._ahead) > _SET:
            self._set_at = now
        self._ahead = ahead

    def _vigil(self, gate: Gate, elsewhere: Vigil | None, wall: float, now: float) -> Vigil:
        vigil = self.vigils.get(gate.id)
        looked_at = self._looked_at
        if looked_at is None:
            return Vigil(gate, wall, now)
        if vigil is not None:
            vigil.look(gate, wall, now, looked_at, None if elsewhere is vigil else elsewhere)
            return vigil
        if not self._was_in(self._look, self._answer, gate):
            return Vigil.taken_up(gate, wall, now, self._began, self._set_at)
        vigil = Vigil.begun(gate, wall, now, looked_at)
        if elsewhere is not None and gate.last_at <= elsewhere.gate.last_at:
            vigil.go_on(elsewhere)
        return vigil

    @staticmethod
    def _was_in(look: Look, answer: Soon, gate: Gate) -> bool:
        """Whether an answer must have had this gate, had it been as it is now."""
        if answer.whole:
            return True
        due = gate.last_at + gate.plan.quiet
        all_pages = not any(answer.ends) and max(look.after) == FIRST
        return (all_pages or look.now + _TIE < due) and due < answer.until - _TIE

    def _moved(self, look: Look, answer: Soon) -> dict[tuple[GateKind, str, Plan], Vigil]:
        """Those that lost some of what they had since the last look, as it went to others.

        Were such a diversion an arrival, a study would wait for ever while its members flap.
        """
        left = {gate.id: gate.instances for gate in answer.gates}
        return {
            (vigil.gate.kind, vigil.gate.key, vigil.gate.plan): vigil
            for vigil in self.vigils.values()
            if vigil.gate.plan.members
            and (vigil.gate.id in left or self._was_in(look, answer, vigil.gate))
            and left.get(vigil.gate.id, 0) < vigil.gate.instances
        }
