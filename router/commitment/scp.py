"""Storage commitment as SCP: what peers asked for is weighed, and they are told.

Owns the way of a request from its N-ACTION to its report: noting it durably, looking the instances
up, the N-EVENT-REPORT on an association of its own, trying again, giving up.  Must not know
what makes an instance safe (`judge`) nor the tables (`router.spool.index_promises`).
PS3.4 §J.3.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from itertools import chain
from random import Random

from structlog.typing import FilteringBoundLogger

from router.commitment.dataset import (
    EXPLICIT,
    IMPLICIT,
    REQUEST_STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    Failure,
    Item,
    MalformedCommitment,
    Report,
)
from router.commitment.judge import judge
from router.commitment.presence import Presence, Present
from router.commitment.scp_messages import command_of, decoded, encoded
from router.commitment.scp_ports import Association, Connect, Index, Observer
from router.commitment.search import CaughtUp, Search
from router.commitment.settings import CommitmentSettings
from router.dimse.status import SUCCESS, Service, StatusClass, describe_status, status_class
from router.net.errors import AssociationError
from router.net.normalized import RESOURCE_LIMITATION, Back, Received
from router.net.pool import Proposal
from router.net.target import Target
from router.spool.index_promises import (
    Asked,
    Promise,
    PromiseState,
)
from router.spool.index_thread import Thread
from router.ul import RoleSelection

PROPOSALS: tuple[Proposal, ...] = (
    (STORAGE_COMMITMENT_PUSH_MODEL, IMPLICIT),
    (STORAGE_COMMITMENT_PUSH_MODEL, EXPLICIT),
)
ROLES = (RoleSelection(STORAGE_COMMITMENT_PUSH_MODEL, scu=False, scp=True),)
MOST_OPEN = 10_000
"""Requests that are not reported yet; above it new ones are refused, 0213H."""
_NO_SUCH_SOP_INSTANCE = 0x0112
_NO_SUCH_SOP_CLASS = 0x0118
_NO_SUCH_ACTION = 0x0123
_NOT_AUTHORIZED = 0x0124
_DUPLICATE_TRANSACTION = 0x0131
_AT_ONCE = 100
"""Requests of one remote that are weighed, and reported on one association."""
_REMOTES = 8
"""To so many is reported at the same time; one that does not answer keeps one of them busy."""
_LONGEST_ANSWER = 64 * 1024
_ANSWER = 60.0
"""Seconds for the answer to a report on an association that the peer opened."""
_SOON, _SELDOM = 1.0, 60.0
"""Seconds between two looks for what cannot be told yet; retention may end it meanwhile."""
_MOST_ITEMS = 2_000_000
"""References in the requests that are not reported yet, some 200 MB of the index; likewise."""
_ITEMS_AT_ONCE = 100_000
"""References of the requests that are weighed together; one may have as many."""
_CLOCK_SLACK = 3600.0
_ASLEEP = 60.0
"""Seconds after which the clock is looked at again, should somebody have set it."""


class CommitmentSCP:
    """``target`` says where a remote is reached, by its name and as which AE of ours, or None."""

    def __init__(
        self,
        settings: CommitmentSettings | None,
        index: Index,
        thread: Thread,
        connect: Connect,
        target: Callable[[str, str], Target | None],
        observer: Observer,
        log: FilteringBoundLogger,
        *,
        clock: Callable[[], float],
        random: Random,
        present: Present,
        caught_up: CaughtUp,
        doubted: Callable[[], int] = lambda: 0,
    ) -> None:
        self.settings = settings
        self._index = index
        self._thread = thread
        self._connect = connect
        self._target = target
        self._observer = observer
        self._log = log
        self._clock = clock
        self._random = random
        turn = asyncio.Lock()  # one search at a time, in the order of asking
        self._undecided, self._decided = (Search(index, thread, turn, caught_up) for _ in range(2))
        self._presence = Presence(index, thread, present)
        self._doubted = doubted
        self._back: dict[int, Back] = {}
        self._wake = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._runner: asyncio.Task[None] | None = None

    # -- asked ---------------------------------------------------------------------------------

    def offered(self, local_ae: str) -> bool:
        """Whether a local AE offers it; whether any does, for ""."""
        settings = self.settings
        return settings is not None and (
            not local_ae or not settings.local or local_ae in settings.local
        )

    async def take(self, received: Received) -> int:
        """Deal with an N-ACTION-RQ (see `Handler`): success once the request is on the disk."""
        status, why = await self._take(received)
        if status != SUCCESS:
            self._observer.on_promise(received.remote, "refused")
            self._log.warning(
                "storage commitment refused",
                association=received.association,
                remote=received.remote,
                calling_ae=received.peer_ae,
                status=f"{status:04X}",
                why=why,
            )
        return status

    async def _take(self, received: Received) -> tuple[int, str]:
        command, settings = received.command, self.settings
        if settings is None or not received.remote:
            return _NOT_AUTHORIZED, "the caller is no remote of the configuration"
        if self._target(received.remote, received.own_ae) is None:
            return _NOT_AUTHORIZED, f"remote {received.remote} has no host to report to"
        if command.requested_sop_class_uid != STORAGE_COMMITMENT_PUSH_MODEL:
            return _NO_SUCH_SOP_CLASS, f"not for class {command.requested_sop_class_uid}"
        if command.requested_sop_instance_uid != STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE:
            return _NO_SUCH_SOP_INSTANCE, f"not for {command.requested_sop_instance_uid}"
        if command.action_type_id != REQUEST_STORAGE_COMMITMENT:
            return _NO_SUCH_ACTION, f"no action {command.action_type_id}"
        try:
            action = await decoded(received)
        except MalformedCommitment as error:
            return error.status, str(error)
        now, promises = self._clock(), self._index.promises
        if await self._thread.run(promises.open) >= MOST_OPEN:
            return RESOURCE_LIMITATION, f"{MOST_OPEN} requests are not reported yet"
        if await self._thread.run(promises.open_items) + len(action.items) > _MOST_ITEMS:
            return RESOURCE_LIMITATION, f"{_MOST_ITEMS} instances are not reported yet"
        asked = Asked(
            action.transaction_uid,
            received.remote,
            received.peer_ae,
            received.own_ae,
            received.association,
            [(item.sop_class_uid, item.sop_instance_uid) for item in action.items],
        )
        # Not due before it is answered: the report must not come first.
        outcome, number = await self._thread.run(promises.ask, asked, now, now + _ASLEEP)
        if outcome == "conflict":
            return _DUPLICATE_TRANSACTION, "its transaction UID is in use for other instances"
        # What it is told to be under way must not be forgotten by a power cut.
        await self._thread.run(self._index.barrier)
        if outcome == "new":
            self._observer.on_promise(received.remote, "asked")
        delay = settings.delay
        if settings.answer == "same-association" and received.back is not None:
            self._back[number], delay = received.back, 0.0
        await self._thread.run(promises.hasten, number, now + delay)
        self._wake.set()
        return SUCCESS, ""

    # -- running -------------------------------------------------------------------------------

    def start(self) -> None:
        """Go on with what is open."""
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="commitments")

    async def stop(self) -> None:
        """Break off; what is not reported is, after the next start."""
        tasks = [*self._busy.values(), *([self._runner] if self._runner is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._runner = None

    def configure(self, settings: CommitmentSettings | None) -> None:
        """Go by these from now on; without any, what is open is given up."""
        self.settings = settings
        self._wake.set()

    async def _run(self) -> None:
        promises, run = self._index.promises, self._thread.run
        while True:
            self._wake.clear()
            due: list[Promise] = []
            seconds = _ASLEEP
            try:
                if len(self._busy) < _REMOTES:
                    await run(promises.mend_times, self._clock(), self._longest_wait())
                    due = await run(promises.due, self._clock(), tuple(self._busy), _AT_ONCE)
                    if not due:
                        at = await run(promises.next_due, tuple(self._busy))
                        seconds = min(_ASLEEP, _ASLEEP if at is None else at - self._clock())
            except Exception:  # noqa: BLE001 - it ends with the gateway, not before
                self._log.exception("requests for storage commitment cannot be read")
            if due:
                self._begin(due[0].remote, _bounded(due))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._wake.wait()

    def _longest_wait(self) -> float:
        """What is due later was noted while the clock was ahead."""
        settings = self.settings
        longest = 0.0 if settings is None else max(settings.cap, settings.delay)
        return longest + _CLOCK_SLACK

    def _begin(self, remote: str, due: Sequence[Promise]) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(due))
        self._busy[remote] = task

        def ended(_: asyncio.Task[None]) -> None:
            del self._busy[remote]
            self._wake.set()

        task.add_done_callback(ended)

    async def _serve(self, due: Sequence[Promise]) -> None:
        """Weigh and report what is due for one remote."""
        try:
            settings = self.settings
            if settings is None:
                for promise in due:
                    await self._give_up(promise, "storage commitment is not configured any more")
                return
            weighing = [p for p in due if p.state is PromiseState.WEIGHING]
            decided = await self._weigh(settings, weighing)
            ready = [p for p in due if p.state is PromiseState.REPORTING or p.id in decided]
            await self._weigh_anew(settings, [p for p in ready if p.committed])
            if ready:
                await self._report(settings, ready)
        except Exception as error:  # noqa: BLE001 - as above
            self._log.exception("storage commitment", remote=due[0].remote)
            try:
                for promise in due:  # else the next look would come at once, and for ever
                    await self._put_off(promise, repr(error), _SELDOM)
            except Exception:  # noqa: BLE001 - nor can that be written, as on a full disk
                await asyncio.sleep(_SELDOM)

    # -- weighing ------------------------------------------------------------------------------

    async def _weigh(self, settings: CommitmentSettings, due: Sequence[Promise]) -> set[int]:
        """Note what can be told of the instances; the promises of which all is decided."""
        promises, run = self._index.promises, self._thread.run
        items = {p.id: await run(promises.items, p.id) for p in due}
        open_ = {n: [i for i in all_ if i.verdict is None] for n, all_ in items.items()}
        kept = await self._undecided.look(open_)
        looked = await self._presence.look(settings, chain.from_iterable(open_.values()), kept)
        decided: set[int] = set()
        now, gets_on = self._clock(), False
        for promise in due:
            age = now - promise.asked_at
            verdicts: dict[int, int] = {}
            left = False
            for item in open_[promise.id]:
                if item.sop_instance_uid in looked.later:
                    left = True
                    continue
                found = looked.kept.get(item.sop_instance_uid, ())
                verdict = judge(settings, item.sop_class_uid, found, age, self._doubted())
                if verdict is not None:
                    verdicts[item.number] = verdict
            known = sum(item.verdict is not None for item in items[promise.id])
            whole = known + len(verdicts) == promise.items
            state = PromiseState.REPORTING if whole else PromiseState.WEIGHING
            gets_on = gets_on or bool(verdicts)
            at_once = whole or (left and gets_on)  # else those before would be looked at again
            again = now if at_once else now + min(max(age / 2, _SOON), _SELDOM)
            await run(promises.weighed, promise.id, verdicts, state, again)
            committed = sum(verdict == 0 for verdict in verdicts.values())
            self._observer.on_promised(promise.remote, committed, len(verdicts) - committed)
            if whole:
                decided.add(promise.id)
        return decided

    async def _weigh_anew(self, settings: CommitmentSettings, due: Sequence[Promise]) -> None:
        """What was found safe some time ago, and not told since, may have been dropped.

        What is not found any more went as retention lets it go, and stays committed: what nobody
        had when it went is noted then (`spool.index_unkept`).
        """
        promises, run = self._index.promises, self._thread.run
        items = {p.id: [i for i in await run(promises.items, p.id) if i.verdict == 0] for p in due}
        kept = await self._decided.look(items)
        looked = await self._presence.look(settings, chain.from_iterable(items.values()), kept)
        for promise in due:
            verdicts: dict[int, int] = {}
            for item in items[promise.id]:
                found = looked.kept.get(item.sop_instance_uid, ())
                if found := [one for one in found if not one.superseded]:
                    # Without an age: what is sent once more was there before.
                    verdict = judge(settings, item.sop_class_uid, found, 0.0, self._doubted())
                    if verdict:
                        verdicts[item.number] = verdict
            if verdicts:
                now = self._clock()
                state = PromiseState.REPORTING
                await run(promises.weighed, promise.id, verdicts, state, now)
                self._log.warning(
                    "instances were taken away after they had been found safe",
                    remote=promise.remote,
                    transaction=promise.transaction_uid,
                    instances=len(verdicts),
                )

    # -- reporting -----------------------------------------------------------------------------

    async def _report(self, settings: CommitmentSettings, ready: Sequence[Promise]) -> None:
        """Tell the remote, all on one association but for those that it waits for on its own."""
        ready = [p for p in ready if not await self._told_back(settings, p)]
        if not ready:
            return
        first = ready[0]
        target = self._target(first.remote, first.own_ae)
        if target is None:
            why = f"remote {first.remote} is not configured any more, or has no host"
            await self._in_vain(settings, ready, why)
            return
        left = [p for p in ready if p.own_ae == first.own_ae]  # others: as another AE, next
        try:
            association = await self._connect(target)
        except AssociationError as error:
            await self._in_vain(settings, left, str(error))
            return
        try:
            while left:
                await self._tell(settings, association, target, left[0])
                del left[0]
            with contextlib.suppress(AssociationError):  # what was told stands
                await association.release()
        except AssociationError as error:
            await self._in_vain(settings, left, str(error))
        finally:
            if not association.closed:
                association.abort()

    async def _told_back(self, settings: CommitmentSettings, promise: Promise) -> bool:
        """Whether it could be told on the association on which it asked."""
        back = self._back.get(promise.id)
        if back is None or back.closed:
            return False
        report = await self._composed(promise)
        data = await encoded(report, back.transfer_syntax)
        try:
            response, _ = await back.perform(
                command_of(report), data, longest=_LONGEST_ANSWER, seconds=_ANSWER
            )
        except AssociationError as error:
            self._log.info("no report on the same association", why=str(error))
            return False
        if status_class(response.status) is StatusClass.FAILURE:
            return False
        await self._reported(promise, report)
        return True

    async def _tell(
        self,
        settings: CommitmentSettings,
        association: Association,
        target: Target,
        promise: Promise,
    ) -> None:
        proposal = next((p for p in PROPOSALS if p in association.accepted), None)
        if proposal is None:
            why = f"{target} accepts no context for storage commitment"
            await self._in_vain(settings, [promise], why)
            return
        report = await self._composed(promise)
        data = await encoded(report, proposal[1])
        response, _ = await association.perform(
            association.accepted[proposal], command_of(report), data, longest=_LONGEST_ANSWER
        )
        if status_class(response.status) is StatusClass.FAILURE:
            why = describe_status(response.status, Service.STORAGE_COMMITMENT)
            await self._in_vain(settings, [promise], f"{target} answered the report with {why}")
            return
        await self._reported(promise, report)

    async def _reported(self, promise: Promise, report: Report) -> None:
        await self._settle(promise, PromiseState.REPORTED, "")
        self._observer.on_promise(promise.remote, "reported")
        self._log.info(
            "storage commitment reported",
            remote=promise.remote,
            transaction=promise.transaction_uid,
            committed=len(report.committed),
            failed=len(report.failed),
        )

    async def _composed(self, promise: Promise) -> Report:
        items = await self._thread.run(self._index.promises.items, promise.id)
        committed, failed = [], []
        for one in items:
            item = Item(one.sop_class_uid, one.sop_instance_uid)
            if one.verdict:
                failed.append(Failure(item, one.verdict))
            else:
                committed.append(item)
        return Report(promise.transaction_uid, tuple(committed), tuple(failed))

    async def _in_vain(
        self, settings: CommitmentSettings, promises: Sequence[Promise], why: str
    ) -> None:
        waited = settings.grace if settings.when == "safe" else max(settings.grace, settings.wait)
        for promise in promises:
            if self._clock() - promise.asked_at >= waited + settings.max_age:
                await self._give_up(promise, why)
                continue
            if promise.attempts == 0:
                self._log.warning(
                    "storage commitment could not be reported, it is tried again",
                    remote=promise.remote,
                    transaction=promise.transaction_uid,
                    why=why,
                )
            wait = min(settings.first * 2.0 ** min(promise.attempts, 40), settings.cap)
            await self._put_off(promise, why, wait * self._random.uniform(0.75, 1.0))
            self._observer.on_promise(promise.remote, "retried")

    async def _put_off(self, promise: Promise, why: str, wait: float) -> None:
        due_at = self._clock() + wait
        await self._thread.run(self._index.promises.put_off, promise.id, why, due_at)

    async def _give_up(self, promise: Promise, why: str) -> None:
        await self._settle(promise, PromiseState.GIVEN_UP, why)
        self._observer.on_promise(promise.remote, "given_up")
        self._log.error(
            "storage commitment given up: the remote was not told",
            remote=promise.remote,
            transaction=promise.transaction_uid,
            instances=promise.items,
            attempts=promise.attempts,
            why=why,
        )

    async def _settle(self, promise: Promise, state: PromiseState, why: str) -> None:
        self._back.pop(promise.id, None)
        self._undecided.forget(promise.id)
        self._decided.forget(promise.id)
        await self._thread.run(self._index.promises.settle, promise.id, state, why, self._clock())


def _bounded(due: Sequence[Promise]) -> list[Promise]:
    """The first, and what can be weighed with it; the others are still due after it."""
    items = 0
    for number, promise in enumerate(due):
        items += promise.items
        if number and items > _ITEMS_AT_ONCE:
            return list(due[:number])
    return list(due)
