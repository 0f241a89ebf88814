"""Finds the instances that peers name, which is by SOP Instance UID alone.

Owns how far the index was looked through for which promise, so that it is walked over once and
then only what came since, in short steps between which the index has its other work.  Must not
know what is made of what is found.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from router.commitment.scp_ports import Index
from router.spool.index_promises import Kept, PromiseItem, is_amid
from router.spool.index_thread import Thread

_AT_ONCE = 2000
"""UIDs, or ids, that are handed over at a time: some ten milliseconds."""
_MOST_KEPT = 500_000
"""Ids of instances that are remembered, some 50 MB; of a promise beyond them nothing is, and the
index is walked over for it each time."""

CaughtUp = Callable[[], Awaitable[None]]
"""Waits until the index has all that was acknowledged up to then."""

Wanted = Mapping[int, Sequence[PromiseItem]]
Found = dict[str, dict[int, Kept]]
"""By SOP Instance UID and by id."""


@dataclass(frozen=True, slots=True)
class _Trail:
    """Which instances with an id up to ``reached`` it can be, however far back."""

    reached: int
    ids: tuple[int, ...]


class Search:
    """For one purpose: of a promise it is always asked for the same items, or for fewer.

    ``turn`` is held while the index is searched, which has to be ``caught_up``: of two objects of
    a UID the one that came last is meant, and that may have been acknowledged a moment ago.
    """

    def __init__(
        self, index: Index, thread: Thread, turn: asyncio.Lock, caught_up: CaughtUp
    ) -> None:
        self._promises = index.promises
        self._run = thread.run
        self._trails: dict[int, _Trail] = {}
        self._kept = 0
        self._turn = turn
        self._caught_up = caught_up

    async def look(self, wanted: Wanted) -> Mapping[str, Sequence[Kept]]:
        """What the index has of the items of these promises, by SOP Instance UID.

        When a promise is looked for the first time no further back than to where each of its
        items was found, and through all that came later than the first of those.
        """
        first, again = dict[int, Sequence[PromiseItem]](), dict[int, Sequence[PromiseItem]]()
        found: Found = {}
        if any(wanted.values()):
            await self._caught_up()
        async with self._turn:  # in the order of asking
            for number, items in wanted.items():
                if items:
                    (again if number in self._trails else first)[number] = items
            if first:
                await self._walk(first, found)
            if again:
                await self._follow(again, found)
        return {uid: list(ones.values()) for uid, ones in found.items()}

    def forget(self, promise: int) -> None:
        """It is over."""
        if (trail := self._trails.pop(promise, None)) is not None:
            self._kept -= len(trail.ids)

    async def _walk(self, wanted: Wanted, found: Found) -> None:
        """From the study that came last back to the first."""
        classes: dict[str, set[str]] = {}
        for items in wanted.values():
            for item in items:
                classes.setdefault(item.sop_instance_uid, set()).add(item.sop_class_uid)
        reached = await self._run(self._promises.newest)
        await self._name(classes)
        place, amid = None, False
        while classes or amid:
            some, place = await self._run(self._promises.look, place)
            _note(found, some)
            for one in some:
                if one.sop_class_uid in classes.get(one.sop_instance_uid, ()):
                    del classes[one.sop_instance_uid]
            if place is None:
                break
            amid = is_amid(place, {one.sop_instance_uid for one in some})
        # Another object of a UID may have come later, and be of a study that came before.
        after = min((max(ones) for ones in found.values()), default=reached)
        while after < reached:
            some, after = await self._run(self._promises.look_after, after, reached)
            _note(found, some)
        self._remember(wanted, found, reached)

    async def _follow(self, wanted: Wanted, found: Found) -> None:
        """What was found before, as it is now, and what came since."""
        trails = [self._trails[number] for number in wanted]
        here: Found = {}
        ids = sorted({number for trail in trails for number in trail.ids})
        for begin in range(0, len(ids), _AT_ONCE):
            _note(here, await self._run(self._promises.kept, ids[begin : begin + _AT_ONCE]))
        after = min(trail.reached for trail in trails)
        reached = await self._run(self._promises.newest)
        uids = list({i.sop_instance_uid for all_ in wanted.values() for i in all_})
        for begin in range(0, len(uids), _AT_ONCE):
            names = frozenset(uids[begin : begin + _AT_ONCE])
            _note(here, await self._run(self._promises.overtaken, names))
        if after < reached:
            await self._name(uids)
        while after < reached:
            some, after = await self._run(self._promises.look_after, after, reached)
            _note(here, some)
        self._remember(wanted, here, reached)
        for ones in here.values():
            _note(found, ones.values())

    async def _name(self, uids: Iterable[str]) -> None:
        """These are looked for from now on."""
        names = list(uids)
        for begin in range(0, len(names), _AT_ONCE):
            some = names[begin : begin + _AT_ONCE]
            await self._run(self._promises.want, some, anew=not begin)

    def _remember(self, wanted: Wanted, found: Found, reached: int) -> None:
        for number, items in wanted.items():
            self.forget(number)
            ids = {i for item in items for i in found.get(item.sop_instance_uid, ())}
            if self._kept + len(ids) <= _MOST_KEPT:
                self._kept += len(ids)
                self._trails[number] = _Trail(reached, tuple(ids))


def _note(found: Found, some: Iterable[Kept]) -> None:
    for one in some:
        found.setdefault(one.sop_instance_uid, {})[one.instance_id] = one
