"""Associations kept open to one destination, as requestor (PS3.7 §7.1, PS3.8 §7.1).

Owns which association serves which presentation contexts, how many there are, how long an idle
one lingers, and what the peer refused.  One presentation context per (abstract syntax, transfer
syntax): in a shared list the acceptor may choose the wrong one.  Must not know instances,
queues or retries; opens associations through the function it was given and never decides when
to try again after a failure.

No timer of its own: the owner calls `Pool.reap` at `Pool.next_expiry`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from router.net.errors import AssociationError

Proposal = tuple[str, str]
"""Abstract syntax UID and the one transfer syntax UID proposed for it."""

_MOST_REFUSED = 4096
"""Pairs that are remembered as refused: peers name them, so their number is not ours."""

MAX_CONTEXTS = 128
"""Presentation contexts in one A-ASSOCIATE-RQ: ids are odd, 1 to 255 (PS3.8 §9.3.2.2)."""


class StoreResult(Protocol):
    """The answer to a C-STORE: DIMSE status and Error Comment ("" when absent)."""

    @property
    def status(self) -> int: ...
    @property
    def comment(self) -> str: ...


class Readable(Protocol):
    """The bytes of a data set, as `Association.store` reads them."""

    @property
    def length(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    def try_read(self, buffers: list[memoryview]) -> bool: ...
    def read(self, buffers: list[memoryview]) -> None: ...
    def close(self) -> None: ...


class Pace(Protocol):
    """How fast may be sent."""

    @property
    def piece(self) -> int:
        """Bytes that are written at once, at most; of a few thousand at least."""
        ...

    async def take(self, count: int) -> None:
        """Until so many bytes may be written."""
        ...


class Association(Protocol):
    """What the pool and its users need of an association that we requested."""

    @property
    def id(self) -> str: ...
    @property
    def accepted(self) -> Mapping[Proposal, int]: ...
    @property
    def doubtful(self) -> Collection[Proposal]:
        """Pairs that were not accepted for no reason that lies in themselves (PS3.8 table 9-18,
        result 1 or 2, or no answer): some peers refuse so what is too many for them."""
        ...

    pace: Pace | None

    @property
    def window(self) -> int: ...
    @property
    def closed(self) -> bool: ...

    async def store(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        reader: Readable,
        *,
        on_sent: Callable[[], None],
    ) -> StoreResult: ...
    async def echo(self) -> int: ...
    async def release(self) -> None: ...
    def abort(self) -> None: ...


Connect = Callable[[Sequence[Proposal]], Awaitable[Association]]
"""Opens an association that proposes these; raises AssociationError."""


class Checkout:
    """An association in somebody's hands, from `Pool.acquire` to `Pool.release`.

    ``reused`` tells that it served before and lay idle since: its peer may have left without
    our having heard.  ``answered`` counts the answers in this use; the user keeps it.  ``study`` is
    the only one that it may carry, None for any; ``single``: no more than one instance.
    """

    __slots__ = (
        "_pool",
        "answered",
        "association",
        "busy",
        "idle_since",
        "reused",
        "single",
        "study",
    )

    def __init__(self, pool: "Pool", association: Association) -> None:
        self._pool = pool
        self.association = association
        self.busy = True
        self.reused = False
        self.answered = 0
        self.idle_since = 0.0
        self.study: str | None = None
        self.single = pool.single

    @property
    def accepted(self) -> Mapping[Proposal, int]:
        """Accepted pairs and their presentation context ids."""
        return self.association.accepted

    @property
    def retired(self) -> bool:
        """The pool wants it back: finish the message and release."""
        return self._pool.retired or self.association.closed


class Pool:
    """At most ``limit`` associations, each idle for at most ``linger`` seconds.

    ``clock`` gives monotonic seconds.  A pair that the peer refused is not proposed again for
    ``refusal_memory`` seconds, or until `forget_refusals`.  ``single``: used
    once and closed.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        limit: int,
        linger: float,
        clock: Callable[[], float],
        refusal_memory: float = 600.0,
        close_timeout: float = 5.0,
        single: bool = False,
    ) -> None:
        self._connect = connect
        self._limit = limit
        self._linger = linger
        self._clock = clock
        self._refusal_memory = refusal_memory
        self._close_timeout = close_timeout
        self.single = single
        self._entries: list[Checkout] = []
        self._opening = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._refused: dict[Proposal, float] = {}
        self._recent: dict[Proposal, None] = {}
        self.retired = False

    @property
    def open(self) -> int:
        """Associations that stand, in use or idle."""
        return sum(not entry.association.closed for entry in self._entries)

    @property
    def empty(self) -> bool:
        """Whether nothing is left of it: no association, none being opened or closed."""
        return not (self._entries or self._opening or self._closing)

    @property
    def next_expiry(self) -> float | None:
        """When the first idle association will have lingered long enough."""
        idle = [entry.idle_since for entry in self._entries if not entry.busy]
        return min(idle) + self._linger if idle else None

    def refused(self, pair: Proposal) -> bool:
        """Whether the peer refused this pair lately."""
        until = self._refused.get(pair)
        if until is None:
            return False
        if self._clock() >= until:
            del self._refused[pair]
            return False
        return True

    def resize(self, limit: int) -> None:
        """Another limit from now on; who has more keeps them until they are released."""
        self._limit = limit

    def forget_refusals(self) -> None:
        """The next association proposes again what was refused."""
        self._refused.clear()

    def forget_refusal(self, pair: Proposal) -> None:
        """The next association that needs this pair proposes it again."""
        self._refused.pop(pair, None)

    def served(self, pair: Proposal) -> bool:
        """Whether an association that stands, in use or idle, accepts this pair."""
        return any(pair in entry.accepted for entry in self._entries if not entry.retired)

    async def acquire(
        self,
        needed: Iterable[Proposal],
        together: Callable[[Proposal], bool] = lambda pair: True,
        study: str | None = None,
    ) -> Checkout | None:
        """An association that accepts some of ``needed``, which has the most urgent first.

        Reuses an idle one; opens one when the most urgent pair is on none that stands, giving
        up the longest idle one if there is no room.  What was needed lately is proposed along
        where ``together`` is true of it.  With ``study`` it is for that study alone, and so is the
        one that is reused; an idle one of it that is of no use is closed first.  None when
        nothing needed is accepted: ask `refused`.
        Raises AssociationError when an association could not be opened, and RuntimeError when
        there are more users than ``limit``.
        """
        wanted = [pair for pair in dict.fromkeys(needed) if not self.refused(pair)]
        if not wanted:
            return None
        self._remember(wanted)
        self._entries = [e for e in self._entries if e.busy or not e.association.closed]
        if (idle := self._idle_for(wanted, study)) is not None:
            idle.busy = idle.reused = True
            idle.answered = 0
            return idle
        await self._make_room(study)
        return await self._open(wanted, together, study)

    def release(self, checkout: Checkout) -> None:
        """Gives an association back; one that is closed, or of a retired pool, is let go."""
        checkout.busy = False
        checkout.idle_since = self._clock()
        if checkout.retired or checkout.single:
            self._let_go(checkout)

    def reap(self) -> None:
        """Closes what has been idle for longer than the linger; to be called at `next_expiry`."""
        now = self._clock()
        for entry in [entry for entry in self._entries if not entry.busy]:
            if entry.association.closed or now >= entry.idle_since + self._linger:
                self._let_go(entry)

    def trim(self, most: int) -> None:
        """Closes idle associations, the longest idle first, until ``most`` stand."""
        idle = [entry for entry in self._entries if not entry.busy]
        for entry in sorted(idle, key=lambda entry: entry.idle_since):
            if self.open <= most:
                break
            self._let_go(entry)

    def retire(self) -> None:
        """Opens nothing more; idle associations are closed now, others when released."""
        self.retired = True
        for entry in [entry for entry in self._entries if not entry.busy]:
            self._let_go(entry)

    async def aclose(self) -> None:
        """Retires the pool and waits until what can be closed is closed (bounded)."""
        self.retire()
        if self._closing:
            await asyncio.wait(self._closing)

    def _remember(self, wanted: Iterable[Proposal]) -> None:
        for pair in wanted:
            self._recent.pop(pair, None)
            self._recent[pair] = None
        while len(self._recent) > MAX_CONTEXTS:
            del self._recent[next(iter(self._recent))]

    @property
    def studies(self) -> set[str]:
        """Studies that associations in use are for alone."""
        return {e.study for e in self._entries if e.busy and e.study is not None}

    def _idle_for(self, wanted: Sequence[Proposal], study: str | None) -> Checkout | None:
        # The last one used first, so that what is too many grows old and is closed.
        free = (e for e in self._entries if not e.busy and e.study == study)
        idle = sorted(free, key=lambda e: -e.idle_since)
        for entry in idle:
            if wanted[0] in entry.accepted:
                return entry
        if not self.served(wanted[0]):
            return None
        for entry in idle:
            if any(pair in entry.accepted for pair in wanted):
                return entry
        return None

    async def _make_room(self, study: str | None) -> None:
        if study is not None:
            for entry in [e for e in self._entries if not e.busy and e.study == study]:
                self._let_go(entry)
        while self.open + self._opening + len(self._closing) >= self._limit:
            idle = [entry for entry in self._entries if not entry.busy]
            if idle and not self._closing:
                self._let_go(min(idle, key=lambda entry: entry.idle_since))
            if not self._closing:
                raise RuntimeError("more users than associations in the pool")
            # A peer that counts its associations must have seen the old one go.
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)

    async def _open(
        self,
        wanted: Sequence[Proposal],
        together: Callable[[Proposal], bool],
        study: str | None = None,
    ) -> Checkout | None:
        unserved = [pair for pair in wanted if not self.served(pair)]
        # What was needed lately is proposed along, so that a mixture that trickles in does not
        # ask for an association per kind.
        recent = [p for p in reversed(self._recent) if not self.refused(p) and together(p)]
        proposals = list(dict.fromkeys([*unserved, *wanted, *recent]))[:MAX_CONTEXTS]
        self._opening += 1
        try:
            association = await self._connect(proposals)
        finally:
            self._opening -= 1
        self._forget_old_refusals()
        until = self._clock() + self._refusal_memory
        for pair in proposals:
            if pair in association.accepted:
                self._refused.pop(pair, None)
            elif len(proposals) == 1 or pair not in association.doubtful:
                self._refused[pair] = until
        entry = Checkout(self, association)
        entry.study = study
        self._entries.append(entry)
        if any(pair in association.accepted for pair in wanted):
            return entry
        self._let_go(entry)
        return None

    def _forget_old_refusals(self) -> None:
        if len(self._refused) < _MOST_REFUSED:
            return
        now = self._clock()
        self._refused = {pair: until for pair, until in self._refused.items() if now < until}
        if len(self._refused) >= _MOST_REFUSED:
            self._refused.clear()

    def _let_go(self, entry: Checkout) -> None:
        self._entries.remove(entry)
        if entry.association.closed:
            return
        task = asyncio.get_running_loop().create_task(self._close(entry.association))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, association: Association) -> None:
        try:
            async with asyncio.timeout(self._close_timeout):
                await association.release()
        except (AssociationError, TimeoutError):
            # The peer does not take part in an orderly release; it is over all the same.
            if not association.closed:
                association.abort()
