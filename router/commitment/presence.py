"""Looks whether instances are on the disk before it is promised that they are.

Owns which of them are looked at, and how many at a time.  Must not know how an instance is found,
nor how the files of the spool are made.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from router.commitment.judge import in_question
from router.commitment.scp_ports import Index
from router.commitment.settings import CommitmentSettings
from router.spool.index_promises import Kept, PromiseItem
from router.spool.index_thread import Thread
from router.spool.record import Ref

Present = Callable[[Sequence[Ref]], Awaitable[Mapping[int, bool | None]]]
"""Whether each is there, by id; None when that cannot be told now."""

_AT_ONCE = 500
"""Instances for one visit to the index, and to the disk: some milliseconds."""
MOST = 10_000
"""Instances that are looked at in one go; what is left has its turn after other requests."""
_LOOKS = 3
"""Compaction may move a record between the look at the index and that at the disk."""


@dataclass(frozen=True, slots=True)
class Looked:
    """``kept`` as it was given, with what is not on the disk marked; ``later`` are the SOP Instance
    UIDs that were too many."""

    kept: Mapping[str, Sequence[Kept]]
    later: frozenset[str]


class Presence:
    """``present`` looks at the disk, in a thread of its own."""

    def __init__(self, index: Index, thread: Thread, present: Present) -> None:
        self._promises = index.promises
        self._run = thread.run
        self._present = present

    async def look(
        self,
        settings: CommitmentSettings,
        items: Iterable[PromiseItem],
        kept: Mapping[str, Sequence[Kept]],
    ) -> Looked:
        """At those of ``kept`` on which a promise for ``items`` would rest."""
        wanted: dict[int, str] = {}
        later: set[str] = set()
        for item in items:
            uid = item.sop_instance_uid
            resting = in_question(settings, item.sop_class_uid, kept.get(uid, ()))
            if resting and len(wanted) >= MOST and resting[0].instance_id not in wanted:
                later.add(uid)
            else:
                wanted.update((one.instance_id, uid) for one in resting)
        if not wanted:
            return Looked(kept, frozenset(later))
        there = await self._there(list(wanted))
        marked = dict(kept)
        for uid in {wanted[number] for number, is_there in there.items() if not is_there}:
            marked[uid] = [
                replace(one, present=there.get(one.instance_id, True)) for one in kept[uid]
            ]
        return Looked(marked, frozenset(later))

    async def _there(self, ids: Sequence[int]) -> Mapping[int, bool | None]:
        found: dict[int, bool | None] = {}
        for begin in range(0, len(ids), _AT_ONCE):
            found |= await self._some(ids[begin : begin + _AT_ONCE])
        return found

    async def _some(self, ids: Collection[int]) -> Mapping[int, bool | None]:
        found: dict[int, bool | None] = {}
        before: dict[int, Ref] = {}
        for _ in range(_LOOKS):
            now = await self._run(self._promises.refs, ids)
            # What is not in the index any more was purged since it was found there.
            found |= dict.fromkeys(set(ids) - set(now), None)
            moved = [ref for ref in now.values() if before.get(ref.id) != ref]
            if not moved:
                break
            found |= await self._present(moved)
            before |= now
            ids = [ref.id for ref in moved if not found[ref.id]]
            if not ids:
                break
        return found
