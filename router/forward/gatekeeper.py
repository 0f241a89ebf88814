"""Opens and shuts the gates: what waits for a study, a series or a schedule.

Owns when that is, in one task for all gates, and the questions to archives.  Must not know
destinations beyond their names, nor associations: who may still send to a study it is told.

Everything that a gate waits for is in the index, so after a restart it goes on from there.  What
cannot be known any longer is taken for the time that has passed: no gate stays shut for ever.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from random import Random

from structlog.typing import FilteringBoundLogger

from router.forward.attention import AT_ONCE, Attention
from router.forward.backoff import delay
from router.forward.ports import Ask, GateIndex
from router.forward.questions import Questions
from router.forward.vigil import Vigil
from router.net.settings import Retry
from router.spool.errors import SpoolError
from router.spool.index_types import Gate
from rules.window import Windows

LONGEST_WAIT = 60.0
"""Windows are of the wall clock, which may be set: no timer runs longer, in seconds."""
_SOONEST, _LATEST = 0.1, 2.0
_SHARE = 20
"""A look at all gates is had at most once in this many times of what it takes, within bounds."""
_ENOUGH = 16
"""Gates in one turn that cannot be opened: then it is no fault of theirs."""
_REMEMBERED = 300.0
_TROUBLE = Retry(first=0.5, factor=2.0, cap=30.0, jitter=0.25)
_GONE = "the schedule is not configured any more"

AtRest = Callable[[str], AbstractAsyncContextManager[Collection[int]]]
"""While it is entered a destination takes nothing from its queue; gives the ids that it has."""


class Gatekeeper:
    """``clock`` gives seconds since the epoch; timers run by the event loop's own clock.

    ``busy`` says who may still send to a gate's study or series, "" when nobody.
    ``notify(destination, count)`` is called for what became due.
    """

    def __init__(
        self,
        index: GateIndex,
        *,
        clock: Callable[[], float],
        random: Random,
        busy: Callable[[Gate], str],
        ask: Ask,
        destinations: Callable[[], Iterable[str]],
        at_rest: AtRest,
        notify: Callable[[str, int], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._index = index
        self._clock = clock
        self._random = random
        self._busy = busy
        self._destinations = destinations
        self._at_rest = at_rest
        self._notify = notify
        self._logger = log
        self._wake = asyncio.Event()
        self._questions = Questions(index, ask, self._loop.time, self._wake.set, log)
        self._schedules: dict[str, Windows] = {}
        self._shut: set[str] = set()
        self._returned: set[str] = set()
        self._opened: set[tuple[str, str]] = set()
        self._attention = Attention(index, clock, self._loop.time)
        self._faulty: dict[int, tuple[int, float]] = {}
        """Gates that could not be opened: how often, and until when they are left alone."""
        self._look_again_at = 0.0
        self._failures = 0
        self._main: asyncio.Task[None] | None = None

    # -- from outside ------------------------------------------------------------------------

    def configure(self, schedules: Mapping[str, Windows]) -> None:
        """Takes on another set of schedules."""
        # One that has other windows is looked at as if it were new.
        same = {name for name, windows in schedules.items() if self._schedules.get(name) == windows}
        self._shut &= same
        self._schedules = dict(schedules)
        self._wake.set()

    async def prepare(self) -> None:
        """Puts back what may not be sent now; to be called before anything sends.

        Raises SpoolError.
        """
        for name, windows in self._schedules.items():
            if not windows.open_at(self._clock()):
                await self._put_back(None, name, ())
                self._shut.add(name)

    def start(self) -> None:
        """Begins with what waits in the index."""
        self._main = self._loop.create_task(self._run(), name="gatekeeper")

    def notify(self) -> None:
        """Something was put behind a gate."""
        self._attention.stale = True
        self._wake.set()

    def freed(self) -> None:
        """An association that may have held up a study has ended."""
        self._wake.set()

    def returned(self, destination: str) -> None:
        """Something came back unsent that was in hand there when a window closed."""
        self._returned.add(destination)
        self._wake.set()

    async def stop(self) -> None:
        """What is under way at the index is finished; the gates stay as they are."""
        self._questions.stop()
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])

    # -- the one task ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                seconds = await self._turn()
                self._well()
            except Exception as error:  # noqa: BLE001 - gates must open, whatever went wrong once
                # Not before its time, however much comes in: the index is in trouble.
                await asyncio.sleep(self._in_trouble(error))
                continue
            timer = self._loop.call_later(min(seconds, LONGEST_WAIT), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _turn(self) -> float:
        """Looks at everything; how many seconds later to look again at the latest."""
        now = self._loop.time()
        await self._shut_schedules()
        await self._put_back_returned()
        if now < self._look_again_at:
            return self._look_again_at - now
        await self._attention.look()
        self._forget_faults()
        waits = [self._next_window()]
        questions: list[Vigil] = []
        opened = False
        for number, gate in enumerate(self._attention.gates.copy(), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # others have their turn
            if gate.kind == "schedule":
                waits.append(await self._try(gate, self._why_schedule(gate)))
                continue
            vigil = self._attention.vigils[gate.id]
            verdict = vigil.judge(self._loop.time(), self._busy(gate))
            if verdict.complete:
                opened = True
                waits.append(await self._try(gate, verdict.why))
            elif verdict.seconds is not None:
                waits.append(verdict.seconds)
            if verdict.ask:
                questions.append(vigil)
        waits.append(self._questions.ask(questions) or LONGEST_WAIT)
        waits.append(self._attention.judged(asking=bool(questions), opened=opened))
        now, spent = self._loop.time(), self._loop.time() - now
        if self._attention.whole:
            self._look_again_at = now + min(max(_SOONEST, _SHARE * spent), _LATEST)
        else:
            self._look_again_at = now + _SOONEST
        if self._attention.stale:
            waits.append(max(self._look_again_at, self._attention.not_before) - now)
        return min(waits)

    # -- opening -----------------------------------------------------------------------------

    async def _try(self, gate: Gate, why: str) -> float:
        """Opens it unless ``why`` is ""; how many seconds later to try again, if need be.

        One that cannot be opened must not keep those behind it shut.
        """
        failures, not_before = self._faulty.get(gate.id, (0, 0.0))
        now = self._loop.time()
        if not why or now < not_before:
            return not_before - now if why else LONGEST_WAIT
        try:
            await self._open(gate, why)
        except Exception as error:
            failures += 1
            seconds = delay(_TROUBLE, failures, self._random.random())
            self._faulty[gate.id] = failures, now + seconds
            if failures == 1:
                self._logger.error(
                    "a gate cannot be opened",
                    destination=gate.destination,
                    gate=gate.id,
                    reason=str(error),
                    exc_info=not isinstance(error, SpoolError),
                )
            if sum(known[1] > now for known in self._faulty.values()) >= _ENOUGH:
                raise
            return seconds
        self._faulty.pop(gate.id, None)
        return LONGEST_WAIT

    def _forget_faults(self) -> None:
        """Of those that are not in mind, after a while: they may only not have their turn."""
        known = {gate.id for gate in self._attention.gates}
        since = self._loop.time() - _REMEMBERED
        self._faulty = {
            gate: fault for gate, fault in self._faulty.items() if gate in known or fault[1] > since
        }

    async def _open(self, gate: Gate, why: str) -> None:
        # Also when it is broken off: what is left has a gate still, and is found again.
        self._attention.stale = True
        count = 0
        while True:
            moved = await self._index.open_gate(gate.id)
            for destination, ready in moved.ready.items():
                self._notify(destination, ready)
            count += sum(moved.ready.values()) + sum(moved.gated.values())
            if not moved.more or (gate.kind == "schedule" and self._is_shut(gate.key)):
                break
        if not moved.more:
            self._attention.drop(gate)
        if count and self._worth_a_line(gate):
            self._logger.info(
                "gate opened",
                destination=gate.destination,
                gate=gate.id,
                waited_for=gate.kind if gate.kind != "schedule" else f"schedule {gate.key}",
                instances=count,
                supplement=gate.supplement,
                why=why,
            )
        if count and why == _GONE:
            self._logger.warning(
                "a schedule is not configured any more: what waited for it is sent now",
                schedule=gate.key,
                destination=gate.destination,
                instances=count,
            )

    def _worth_a_line(self, gate: Gate) -> bool:
        """While a window is open each batch finds its gate and opens it: only the first is told."""
        if gate.kind != "schedule":
            return True
        known = (gate.key, gate.destination) in self._opened
        self._opened.add((gate.key, gate.destination))
        return not known

    # -- schedules ---------------------------------------------------------------------------

    def _is_shut(self, schedule: str) -> bool:
        windows = self._schedules.get(schedule)
        return windows is not None and not windows.open_at(self._clock())

    def _why_schedule(self, gate: Gate) -> str:
        """Why it is opened, "" while it is not."""
        if gate.key not in self._schedules:
            return _GONE
        return "" if self._is_shut(gate.key) else "its window is open"

    async def _shut_schedules(self) -> None:
        for name in list(self._schedules):
            if not self._is_shut(name):
                self._shut.discard(name)
            elif name not in self._shut:
                await self._shut_one(name)
                self._shut.add(name)

    async def _shut_one(self, schedule: str) -> None:
        """What is not being sent yet goes back behind the gate, destination by destination."""
        count = 0
        all_in_hand: set[int] = set()
        for destination in list(self._destinations()):
            async with self._at_rest(destination) as in_hand:
                all_in_hand.update(in_hand)
                count += await self._put_back(destination, schedule, in_hand)
        # And where nothing can be sent now, which may be configured again while it is shut.
        count += await self._put_back(None, schedule, all_in_hand)
        self._attention.stale = True
        self._opened = {opened for opened in self._opened if opened[0] != schedule}
        if count:
            self._logger.info("window closed", schedule=schedule, instances=count)

    async def _put_back_returned(self) -> None:
        """What was in hand when a window closed and came back unsent goes behind the gate too."""
        while self._returned:
            destination = self._returned.pop()
            try:
                async with self._at_rest(destination) as in_hand:
                    for schedule in self._shut:
                        if await self._put_back(destination, schedule, in_hand):
                            self._attention.stale = True
            except BaseException:
                self._returned.add(destination)
                raise

    async def _put_back(
        self, destination: str | None, schedule: str, in_hand: Collection[int]
    ) -> int:
        count, more = 0, True
        while more:
            moved = await self._index.shut_gate(destination, schedule, tuple(in_hand))
            count += sum(moved.gated.values())
            more = moved.more
        return count

    def _next_window(self) -> float:
        """Seconds until a window opens or closes."""
        wall, soonest = self._clock(), LONGEST_WAIT
        for windows in self._schedules.values():
            change = windows.next_change(wall)
            if change is not None:
                soonest = min(soonest, max(0.0, change - wall))
        return soonest

    # -- trouble -----------------------------------------------------------------------------

    def _in_trouble(self, error: Exception) -> float:
        self._failures += 1
        self._attention.stale = True
        if not isinstance(error, SpoolError):
            self._logger.exception("keeping the gates failed")
        elif self._failures == 1:
            self._logger.error("gates cannot be opened or shut", reason=str(error))
        return delay(_TROUBLE, self._failures, self._random.random())

    def _well(self) -> None:
        if self._failures:
            self._logger.info("gates can be opened again")
        self._failures = 0
