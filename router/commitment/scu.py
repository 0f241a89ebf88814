"""Asks one destination to commit what it took.

Owns when it is asked and for how much at once, on which association, and what a failure to ask
means.  Must not know what comes of a report: that is `reports`.  PS3.4 §J.3.2, PS3.7 §10.1.4.

All that is asked for is in the index before it is asked: a crash in between asks again, soon where
no answer to the request came.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from random import Random

from structlog.typing import FilteringBoundLogger

from router.commitment.dataset import (
    EXPLICIT,
    IMPLICIT,
    REQUEST_STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    Item,
    encode_action,
    is_uid,
)
from router.commitment.index import CommitmentIndex
from router.commitment.ports import (
    Asked,
    CommitterConfig,
    CommitterStatus,
    Held,
    NotAsked,
    Observer,
)
from router.commitment.reports import Reports
from router.dimse.command import Command
from router.dimse.status import SUCCESS, describe_status
from router.net.errors import AssociationBroken, AssociationError
from router.net.pool import Proposal
from router.spool.errors import SpoolError
from router.spool.index_commitments import LISTED, Refusal, Transaction

PROPOSALS: tuple[Proposal, ...] = (
    (STORAGE_COMMITMENT_PUSH_MODEL, IMPLICIT),
    (STORAGE_COMMITMENT_PUSH_MODEL, EXPLICIT),
)
"""Implicit VR first: it is what every peer has to take."""
NOT_LISTED = Refusal("not listed by the destination when asked for the series (C-FIND)", again=True)

_N_ACTION_RQ = 0x0130
_LONGEST_REPLY = 64 * 1024
_FIRST_WAIT, _LONGEST_BACK_OFF = 5.0, 600.0
"""Seconds after the first failure in a row, doubled by each more."""
_JITTER = 0.25
_LONGEST_WAIT = 300.0
"""Times of the index are of the wall clock, which may be set: no timer runs longer."""
_UNSURE = 15.0
"""Seconds after which one is asked again that was to be asked when the gateway fell."""
_CLOCK_SLACK = 3600.0
"""No wait is longer by so much than what it was set to, unless the clock was."""
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


class Asker:
    """One destination.  To be made on the event loop; silent until `start`.

    ``clock`` gives seconds since the epoch, ``new_uid`` a UID that nobody has.
    """

    def __init__(
        self,
        config: CommitterConfig,
        *,
        index: CommitmentIndex,
        reports: Reports,
        clock: Callable[[], float],
        new_uid: Callable[[], str],
        random: Random,
        observer: Observer,
        log: FilteringBoundLogger,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._settings = config.settings
        self._index = index
        self._reports = reports
        self._clock = clock
        self._new_uid = new_uid
        self._random = random
        self._observer = observer
        self._logger = log.bind(destination=config.name)
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._open: Asked | None = None
        self._lingering: asyncio.Task[None] | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._next_at: float | None = None
        self._trouble = ""
        self._held: Held | None = None
        self._freed_at = 0.0
        self._amid = False
        self.name = config.name

    def start(self) -> None:
        """Begins to ask."""
        self._main = self._loop.create_task(self._run(), name=f"commitment {self.name}")

    def notify(self) -> None:
        """It took something, or answered."""
        self._wake.set()

    def hasten(self) -> None:
        """What is due is asked for now, however often that was in vain."""
        self._failures, self._retry_at = 0, 0.0
        self._wake.set()

    def held_changed(self) -> None:
        """It may have been paused or shut, or the reverse."""
        if self._config.held() != self._held:
            self._wake.set()

    def status(self) -> CommitterStatus:
        """For display."""
        trouble = self._trouble if self._held is None else self._held.why
        return CommitterStatus(trouble, self._next_at)

    async def stop(self, grace: float = 1.0) -> bool:
        """What is asked now is cut off; it is asked again after a start.  Whether it was amid that:
        what the index was doing for it is done all the same, and nobody is told of it."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        if self._lingering is not None:
            self._lingering.cancel()
            await asyncio.wait([self._lingering])
        await self._let_go(grace)
        return self._amid

    # -- the one task ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._amid = True
            try:
                self._next_at = await self._turn()
            except Exception as error:
                # It must outlive a fault of ours or of the index, and not spin on it either.
                unexpected = not isinstance(error, SpoolError)
                why = str(error) or repr(error)
                self._logger.error("asking for commitment failed", why=why, exc_info=unexpected)
                self._next_at = self._clock() + self._later(why)
            self._amid = False
            timer = None
            if self._next_at is not None:
                wait = min(max(0.0, self._next_at - self._clock()), _LONGEST_WAIT)
                timer = self._loop.call_later(wait, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _turn(self) -> float | None:
        """Asks for all that is to be asked now; when there will be more."""
        settings = self._settings
        if not self._kept_back():
            await self._give_up()
        while True:
            if self._kept_back():
                return None if self._held is None else self._held.until
            now = self._clock()
            found = await self._index.uncommitted(self.name, settings.batch)
            again = found.due_at
            if again is not None and again > now + settings.answer_within + _CLOCK_SLACK:
                again = now  # the clock was ahead, and nobody would ask until that time comes
            times = [] if again is None else [again]
            if found.oldest is not None:
                full = found.unasked >= settings.batch
                times.append(now if full else min(found.oldest, now) + settings.after)
            if not times:
                return None
            if now < self._retry_at and self._retry_at - now <= 2 * _LONGEST_BACK_OFF:
                return self._retry_at
            if min(times) > now:
                return min(times)
            uid = self._new_uid()
            due = now + min(_UNSURE, settings.answer_within)
            transaction = None
            if found.due_at is not None and again is not None and again <= now:
                before = max(now, found.due_at)
                transaction = await self._index.ask_again(self.name, uid, before, due)
            if transaction is None:
                transaction = await self._index.ask(self.name, uid, settings.batch, now, due)
            if transaction is not None:
                await self._ask(transaction)

    def _kept_back(self) -> bool:
        """Whether it is not to be called now; what it is told then comes in all the same."""
        before, self._held = self._held, self._config.held()
        if before is not None and self._held is None:
            self._freed_at = self._clock()
        return self._held is not None

    async def _give_up(self) -> None:
        now = self._clock()
        if 0.0 <= now - self._freed_at < self._settings.answer_within:
            return  # it could not be asked before: it has time for one more answer
        age = self._settings.max_age
        reason = f"not committed within {_in_words(age)}"
        if self._trouble:
            reason += f": {self._trouble}"
        while count := await self._index.give_up(self.name, now - age, reason, now):
            self._logger.warning("commitment given up", instances=count, why=reason)
            self._observer.on_commitment(self.name, "dead", count)
            self._reports.given_up(self.name, count)

    async def _ask(self, transaction: Transaction) -> None:
        try:
            if self._settings.confirm == "find":
                await self._look(transaction)
            else:
                await self._request(transaction)
        except (AssociationError, NotAsked) as error:
            self._observer.on_commitment_asked(self.name, "failed")
            await self._put_off(transaction, str(error))

    async def _put_off(self, transaction: Transaction, why: str) -> None:
        due = self._clock() + self._later(why)
        await self._index.note(transaction.id, due, why)

    def _later(self, why: str) -> float:
        """Seconds to wait after one more failure."""
        if why != self._trouble:
            self._logger.warning("cannot be asked for commitment", why=why)
        self._failures += 1
        self._trouble = why
        wait = self._wait(self._failures)
        self._retry_at = self._clock() + wait
        return wait

    def _wait(self, failures: int) -> float:
        longest = min(_LONGEST_BACK_OFF, _FIRST_WAIT * 2.0 ** min(failures - 1, 30))
        return longest * (1.0 - _JITTER * self._random.random())

    def _well(self) -> None:
        self._observer.on_commitment_asked(self.name, "asked")
        self._failures, self._retry_at, self._trouble = 0, 0.0, ""

    # -- by N-ACTION -------------------------------------------------------------------------

    async def _request(self, transaction: Transaction) -> None:
        # Of several with one UID the first: more than that cannot be asked.
        named = {r.sop_instance_uid: r for r in reversed(transaction.references)}
        items = [
            Item(r.sop_class_uid, r.sop_instance_uid)
            for r in transaction.references
            if named[r.sop_instance_uid] is r
        ]
        if strange := [
            item
            for item in items
            if not (is_uid(item.sop_class_uid) and is_uid(item.sop_instance_uid))
        ]:
            items = [item for item in items if item not in strange]
            await self._take_for_delivered(transaction, strange)
            if not items:
                return
        association = await self._associated()
        try:
            response = await self._perform(association, transaction.uid, items)
        except BaseException:
            await self._let_go()
            raise
        self._lingering = self._loop.create_task(self._linger(association))
        if response.status != SUCCESS:
            self._observer.on_commitment_asked(self.name, "refused")
            why = f"refused to be asked for commitment: {describe_status(response.status)}"
            await self._put_off(transaction, why)
            return
        await self._index.note(transaction.id, self._clock() + self._settings.answer_within, "")
        self._well()
        self._logger.info("commitment asked for", instances=len(items), time=transaction.asked)

    async def _perform(self, association: Asked, uid: str, items: Sequence[Item]) -> Command:
        proposal = next((p for p in PROPOSALS if p in association.accepted), None)
        if proposal is None:
            raise AssociationBroken("the destination accepts no storage commitment")
        command = Command(
            _N_ACTION_RQ,
            requested_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            requested_sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            action_type_id=REQUEST_STORAGE_COMMITMENT,
        )
        data = encode_action(uid, items, proposal[1])
        context_id = association.accepted[proposal]
        response, _ = await association.perform(context_id, command, data, longest=_LONGEST_REPLY)
        return response

    async def _take_for_delivered(self, transaction: Transaction, strange: list[Item]) -> None:
        """What breaks the rules of a UID cannot be asked for; that it was taken is all there is."""
        result = await self._index.answer(
            transaction.uid,
            [item.sop_instance_uid for item in strange],
            {},
            at=self._clock(),
            most={},
            words="taken; its UID is none, so no commitment can be asked for it",
        )
        self._logger.warning("no commitment can be asked for", instances=result.committed)
        self._observer.on_commitment(self.name, "accepted", result.committed)

    async def _associated(self) -> Asked:
        """The association that is kept for reports, or a new one."""
        if self._lingering is not None:
            self._lingering.cancel()
            await asyncio.wait([self._lingering])
            self._lingering = None
        if self._open is None or self._open.closed:
            self._open = await self._config.connect()
        return self._open

    async def _linger(self, association: Asked) -> None:
        """Until its time is up, or the peer ends it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.linger):
                await association.ended()
        if self._open is association:
            await self._let_go()

    async def _let_go(self, grace: float | None = None) -> None:
        association, self._open = self._open, None
        if association is None or association.closed:
            return
        try:
            async with asyncio.timeout(grace):
                await association.release()
        except (AssociationError, TimeoutError):
            association.abort()

    # -- by C-FIND ---------------------------------------------------------------------------

    async def _look(self, transaction: Transaction) -> None:
        listed = set(await self._config.look(transaction.references))
        wanted = set(transaction.references)
        missing = wanted - listed
        now = self._clock()
        late = now - transaction.made_at >= self._settings.answer_within
        result = await self._index.answer(
            transaction.uid,
            wanted & listed,
            dict.fromkeys(missing, NOT_LISTED) if late else {},
            at=now,
            most=self._reports.resend,
            words=LISTED,
        )
        self._well()
        if missing and not late:
            wait = self._wait(transaction.asked)
            end = transaction.made_at + self._settings.answer_within
            await self._index.note(transaction.id, min(now + wait, end), "not all of it is listed")
        if result.committed or result.resent or result.dead:
            self._reports.tell(result)


def _in_words(span: float) -> str:
    size, unit = next((u for u in _UNITS if span >= u[0]), _UNITS[-1])
    return f"{span / size:g} {unit}"
