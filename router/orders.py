"""What operators order of the running gateway.

Owns doing it in steps, so that the index's thread stays free for the queues in between, and
telling those who wait.  What is changed in the index is in `router.spool.index_operated`.
"""

import asyncio
import contextlib
import pwd
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import structlog

from router.config.versions import Origin
from router.net.admission import Admission
from router.spool.described import description
from router.spool.errors import SpoolError
from router.spool.index_duplicates import SameBytes
from router.spool.index_types import (
    OPEN_STATES,
    Changed,
    Disposition,
    Filter,
    InstanceRow,
    Rerouted,
)
from router.spool.reader import Reader
from router.spool.record import InstanceMeta, Ref
from router.trial.anew import decide_anew
from router.web.sources import ControlError, Redone
from router.web.standing import PAUSED
from rules.nearest import did_you_mean
from rules.ruleset import RuleSet

if TYPE_CHECKING:
    from router.app import Gateway

_log = structlog.get_logger("operate")

P = ParamSpec("P")
S = TypeVar("S", Changed, Rerouted)

_OPERATOR = "control socket"
RULE = "by an operator"
"""What a delivery names as its cause that no rule made."""
_STEP = 10_000
_PAGE = 200
_DECIDED, _DECIDED_BYTES = 25, 64 * 2**20
"""Held ones that are compared with what their destinations have in one step, and their bytes."""
_PIECE = 64 << 10
_NAMES_PATIENTS = ("study", "sop_instance_uid", "reason")
"""Conditions that name a study or an instance, or in which somebody may have written a name."""
_IDS_LOGGED = 20


@dataclass
class _Sum:
    """What the steps of an order did."""

    count: int = 0
    bytes: int = 0
    left: int = 0

    def add(self, step: Changed | Rerouted) -> None:
        self.count += step.count
        self.bytes += step.bytes
        if isinstance(step, Rerouted):
            self.left += step.left


class Orders:
    """The acting part of `ControlSource`."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def retry(self, which: Filter, origin: Origin) -> Changed:
        """See `ControlSource`."""
        who = await asked_by(origin)
        changed = await self._act("retry", which, who=who)
        index, asked = self._gateway.index, _Sum()
        cursor: tuple[int, int] | None = None
        more = True
        try:
            while more:
                step = await self._step(
                    asked, index.ask_again, which, at=time.time(), who=who, after=cursor
                )
                cursor, more = step.cursor, step.more
        finally:
            if asked.count:
                self._told("ask again", which, asked, who, ended=not more)
                self._gateway.proof.hasten(which.destination)
                await self._keep()
        return Changed(changed.count + asked.count, changed.bytes + asked.bytes)

    async def hasten(self, which: Filter, origin: Origin) -> Changed:
        """See `ControlSource`."""
        return await self._act("hasten", which, who=await asked_by(origin))

    async def drop(self, which: Filter, reason: str, origin: Origin) -> Changed:
        """See `ControlSource`."""
        return await self._act("drop", which, reason, who=await asked_by(origin))

    async def hold(self, which: Filter, origin: Origin) -> Changed:
        """See `ControlSource`."""
        return await self._act("hold", which, who=await asked_by(origin))

    async def release(self, which: Filter, origin: Origin) -> Changed:
        """See `ControlSource`."""
        return await self._act("release", which, who=await asked_by(origin))

    async def route_held(
        self, which: Filter, destinations: tuple[str, ...], origin: Origin
    ) -> Changed:
        """See `ControlSource`."""
        self._check(destinations)
        who = await asked_by(origin)
        return await self._act("route_held", which, destinations, RULE, who=who)

    async def discard_held(self, which: Filter, reason: str, origin: Origin) -> Changed:
        """See `ControlSource`."""
        return await self._act("discard_held", which, reason, who=await asked_by(origin))

    async def _act(self, action: str, which: Filter, *more: object, who: str) -> Changed:
        await self._named(which)
        method: Callable[..., Changed] = getattr(self._gateway.index, action)
        async with self._ordered(action, which, who) as done:
            again = True
            while again:
                changed = await self._step(
                    done, method, which, *more, at=time.time(), who=who, limit=_STEP
                )
                again = changed.more
        return Changed(done.count, done.bytes)

    @contextlib.asynccontextmanager
    async def _ordered(self, action: str, which: Filter, who: str) -> AsyncIterator[_Sum]:
        """An order whose steps are done while this is entered; they are told of and kept at its
        end, also when it was broken off: those before stand."""
        done, ended = _Sum(), False
        try:
            yield done
            ended = True
        finally:
            self._told(action, which, done, who, ended=ended)
            await self._keep()

    async def _step(self, done: _Sum, work: Callable[P, S], *args: P.args, **more: P.kwargs) -> S:
        """One step of an order, on the index's thread.  When the order is broken off meanwhile the
        step is done all the same, and counted."""
        doing = asyncio.ensure_future(self._gateway.index_thread.run(work, *args, **more))
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait([doing])
            if not doing.cancelled() and doing.exception() is None:
                done.add(doing.result())
            raise
        done.add(doing.result())
        return doing.result()

    def _told(self, action: str, which: Filter, done: _Sum, who: str, *, ended: bool) -> None:
        meant = logged(which)
        _log.info("operator", action=action, who=who, which=meant, count=done.count, ended=ended)
        self._gateway.forwarder.refresh()
        self._gateway.gatekeeper.notify()

    async def _keep(self) -> None:
        """What an operator is told to be done is not to be undone by a power cut."""
        await self._gateway.index_thread.run(self._gateway.index.barrier)

    # -- pausing

    async def pause(self, destination: str, reason: str, origin: Origin) -> bool:
        """See `ControlSource`."""
        self._check((destination,))
        gateway, who = self._gateway, await asked_by(origin)
        # Whatever the index says: who pauses means now, and a disk that is full may be why.  Also
        # where it was paused before: of an order that was broken off the one half may stand.
        gateway.forwarder.pause(destination, PAUSED)
        try:
            new = await gateway.index_thread.run(
                gateway.index.pause, destination, reason, at=time.time(), who=who
            )
            await self._keep()
        except SpoolError as error:
            held = f"{destination} is paused, but the next start may not know of it: {error}"
            raise type(error)(held) from error
        if new:
            _log.warning("destination paused", destination=destination, who=who)
        return new

    async def resume(self, destination: str, origin: Origin) -> bool:
        """See `ControlSource`."""
        gateway, who = self._gateway, await asked_by(origin)
        paused = await gateway.index_thread.run(
            gateway.index.resume, destination, at=time.time(), who=who
        )
        gateway.forwarder.resume(destination)  # as in `pause`
        if not paused:
            # One that is gone from the configuration may still be paused: look before refusing.
            self._check((destination,))
        else:
            _log.warning("destination resumed", destination=destination, who=who)
        await self._keep()  # of an order that was broken off nothing may be synced yet
        return paused

    # -- elsewhere

    async def redirect(self, which: Filter, target: str, reason: str, origin: Origin) -> Redone:
        """See `ControlSource`."""
        origin_name = check_redirect(which, target)
        self._check((target,))
        await self._named(which)
        gateway, who = self._gateway, await asked_by(origin)
        async with self._ordered(f"redirect to {target}", which, who) as done:
            cursor: tuple[int, int] | None = None
            more = True
            while more:
                # Never two hands on one delivery: it takes nothing from its queue meanwhile.
                async with gateway.forwarder.at_rest(origin_name) as in_hand:
                    step = await self._step(
                        done,
                        gateway.index.redirect,
                        *(which, target, reason, tuple(in_hand)),
                        at=time.time(),
                        who=who,
                        after=cursor,
                        same_bytes=self._same_bytes,
                    )
                cursor, more = step.cursor, step.more
        return Redone(done.count, done.bytes, done.left)

    async def resend(self, which: Filter, destinations: tuple[str, ...], origin: Origin) -> Redone:
        """See `ControlSource`."""
        self._check(destinations)
        await self._named(which)
        gateway, who = self._gateway, await asked_by(origin)
        until, after, more = await gateway.index_thread.run(gateway.index.last_id), 0, True
        async with self._ordered(f"resend to {', '.join(destinations)}", which, who) as done:
            while more:
                step = await self._step(
                    done,
                    gateway.index.resend,
                    *(which, destinations, RULE),
                    at=time.time(),
                    who=who,
                    after=after,
                    until=until,
                    same_bytes=self._same_bytes,
                )
                after, more = step.after, step.more
        return Redone(done.count, done.bytes, done.left)

    async def reroute(self, which: Filter, origin: Origin) -> Redone:
        """See `ControlSource`."""
        await self._named(which)
        check_reroute(which)
        gateway, who = self._gateway, await asked_by(origin)
        run, index = gateway.index_thread.run, gateway.index
        rules = gateway.loaded.rules
        config = gateway.loaded.config
        again = anew(rules, Admission(config.local, config.remotes, config.network))
        until, after, ended, damaged = await run(index.last_id), 0, False, 0
        async with self._ordered("reroute", which, who) as done:
            while not ended:
                rows = await run(index.instances, held(which), _PAGE, after)
                rows, ended = [r for r in rows if r.ref.id <= until], len(rows) < _PAGE
                decided = []
                for row in rows:
                    meta = await self._decide(row, again)
                    damaged += meta is None
                    decided += [] if meta is None else [(row.ref, meta)]
                for some in portions(decided):
                    await self._step(
                        done,
                        index.route_anew,
                        [(ref.id, meta) for ref, meta in some],
                        at=time.time(),
                        who=who,
                        same_bytes=self._same_bytes,
                    )
                after = rows[-1].ref.id if rows else until
                ended = ended or after >= until
        return Redone(done.count, done.bytes, done.left + damaged)

    async def _decide(
        self, row: InstanceRow, again: Callable[[InstanceMeta, Iterable[bytes]], InstanceMeta]
    ) -> InstanceMeta | None:
        """None for one that cannot be read, or is not what was committed: what the disk made of an
        attribute, or of what the index says of who sent it, must not have it discarded."""

        def decide() -> InstanceMeta:
            spool = self._gateway.spool
            received = description(spool, row.ref)
            reader = spool.open_reader(row.ref)
            try:
                meta = again(received, pieces(reader))
                for _ in pieces(reader):  # the check sum is behind the last byte
                    pass
                return meta
            finally:
                reader.close()

        try:
            return await asyncio.to_thread(decide)
        except SpoolError as error:
            _log.error("held instance cannot be read", instance=row.ref.id, why=str(error))
            return None

    @property
    def _same_bytes(self) -> SameBytes | None:
        """What tells a duplicate; None where duplicates are sent."""
        gateway = self._gateway
        suppress = gateway.storage.settings.duplicates == "suppress"
        return gateway.spool.same_bytes if suppress else None

    def _check(self, names: Iterable[str]) -> None:
        check_destinations(names, self._configured)

    @property
    def _configured(self) -> list[str]:
        remotes = self._gateway.loaded.config.remotes
        return [name for name, remote in remotes.items() if remote.host is not None]

    async def _named(self, which: Filter) -> None:
        """Raises ControlError where it names a destination that nobody knows: to take that for one
        where nothing waits would hide a slip of the pen."""
        if which.destination is not None and which.destination not in self._configured:
            gateway = self._gateway
            known = await gateway.index_thread.run(gateway.index.destinations)
            check_named(which, [*self._configured, *known])


def logged(which: Filter) -> dict[str, str]:
    """The conditions that are given, as they may go into the log: which study was meant is on
    record in the index alone."""
    given = {name: value for name, value in asdict(which).items() if value is not None}
    return {
        name: "given" if name in _NAMES_PATIENTS else _in_short(value)
        for name, value in given.items()
    }


def _in_short(value: object) -> str:
    if isinstance(value, tuple) and len(value) > _IDS_LOGGED:
        return f"{len(value)} given"
    return value.name.lower() if isinstance(value, Enum) else str(value)


def check_destinations(names: Iterable[str], known: list[str]) -> None:
    """Raises ControlError for one that is none of those configured."""
    for name in names:
        if name not in known:
            fix = did_you_mean(name, known) or f"there are: {', '.join(known) or 'none'}"
            raise ControlError(f"{name} is not a destination", fix)


def check_named(which: Filter, known: Iterable[str]) -> None:
    """Raises ControlError for conditions on a destination that is none of those ``known``: the
    configured ones, and those that something was routed to."""
    name, names = which.destination, sorted(set(known))
    if name is not None and name not in names:
        fix = did_you_mean(name, names) or f"there are: {', '.join(names) or 'none'}"
        raise ControlError(f"nothing was ever routed to a destination {name}", fix)


def check_redirect(which: Filter, target: str) -> str:
    """From where; raises ControlError for what cannot be redirected."""
    if which.destination is None:
        raise ControlError("it is not said from where", 'as in "destination": "pacs"')
    if which.destination == target:
        raise ControlError(f"from {target} to itself", "name another destination as `to`")
    if which.state not in (None, *OPEN_STATES):
        raise ControlError(
            f"what is {which.state.name.lower()} waits for nothing that could be redirected",
            "state is ready, held or dead; `instances resend` sends what was taken elsewhere too",
        )
    return which.destination


def check_reroute(which: Filter) -> None:
    """Raises ControlError for what no held instance can meet."""
    if which.disposition not in (None, Disposition.HELD):
        raise ControlError(
            "only instances that are held as no rule sent them are decided anew",
            "leave disposition out; `queue release --to NAME` is for quarantined ones",
        )
    if which.destination is not None or which.state is not None:
        raise ControlError(
            "an instance that is held has no deliveries yet",
            "leave destination and state out",
        )


def held(which: Filter) -> Filter:
    """The same, of those alone that no rule sent anywhere."""
    return replace(which, disposition=Disposition.HELD)


def portions(
    decided: Sequence[tuple[Ref, InstanceMeta]],
) -> Iterator[Sequence[tuple[Ref, InstanceMeta]]]:
    """What is compared in one step each, in the same order: the queues wait for the index
    meanwhile.  One alone may have more bytes than that."""
    begin = size = 0
    for end, (ref, _) in enumerate(decided):
        size += ref.length
        if end > begin and (size > _DECIDED_BYTES or end - begin == _DECIDED):
            yield decided[begin:end]
            begin, size = end, ref.length
    if decided:
        yield decided[begin:]


def anew(
    rules: RuleSet, admission: Admission
) -> Callable[[InstanceMeta, Iterable[bytes]], InstanceMeta]:
    """What decides an instance by these rules, whose callers are named as these remotes say."""

    def identify(calling_ae: str, source: str) -> str:
        return next(iter(admission.identify(calling_ae, source)), "")

    return lambda meta, data: decide_anew(rules, identify, meta, data)


def pieces(reader: Reader) -> Iterator[bytes]:
    """Its data set as it is read; blocking.  Raises SpoolError."""
    while reader.remaining:
        piece = bytearray(min(_PIECE, reader.remaining))
        reader.read([memoryview(piece)])
        yield bytes(piece)


async def asked_by(origin: Origin) -> str:
    """Who gave the order: as they say, else the user at the other end of the socket."""
    return (await named(origin)).author or _OPERATOR


async def named(origin: Origin) -> Origin:
    """With the user's name for the number that the kernel told, and as the author if none is."""
    kind, _, uid = origin.via.rpartition(" uid ")
    if not kind or not uid.isdigit():
        return origin
    # Not on the loop: where users are kept may be a server on the network.
    user = await asyncio.to_thread(user_name, int(uid))
    return Origin(origin.author or user, f"{kind}, user {user}", origin.note)


def user_name(uid: int) -> str:
    """That of a user of this machine, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
