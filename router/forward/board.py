"""The bounded set of instances that a destination has taken from its queue.

Owns which leased instance is sent next, by priority, then by study, oldest first.  Must not
know associations beyond the pairs that one accepts, nor time, nor how an instance fares: an
instance is on the board from `Board.add` until `Board.settled`, whatever becomes of it.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Container, Iterable, KeysView

from router.net.pool import Proposal
from router.spool.index_types import Waiting

_ACTIVE = 256
_ACTIVE_CEILING = 4096


def proposal(item: Waiting) -> Proposal:
    """The (abstract syntax, transfer syntax) pair that an instance is sent with."""
    return item.sop_class_uid, item.transfer_syntax_uid


class _Group:
    """Waiting instances of one study with one priority and one pair."""

    __slots__ = ("items", "pair", "rank", "study")

    def __init__(self, rank: tuple[int, int], study: str, pair: Proposal) -> None:
        self.rank = rank
        self.study = study
        self.pair = pair
        self.items: deque[Waiting] = deque()

    def __lt__(self, other: "_Group") -> bool:
        return self.rank < other.rank


class Board:
    """At most ``limit`` instances; once ``minimum`` wait, no more than ``byte_limit`` of them.

    The bytes are a bound on how long a newcomer of higher priority stands behind, not on
    memory: only descriptions are held here.
    """

    def __init__(self, *, limit: int, minimum: int, byte_limit: int) -> None:
        self.limit = limit
        self.minimum = minimum
        self.byte_limit = byte_limit
        self.waiting = 0
        self._bytes = 0
        self._sequence = 0
        self._active: dict[int, Waiting] = {}
        self._groups: dict[tuple[int, str, Proposal], _Group] = {}
        self._order: list[_Group] = []
        self._workers: dict[str, int] = {}

    def fit(self, at_once: int) -> None:
        """Sizes it for a destination that can have ``at_once`` messages under way."""
        self.minimum = 2 * at_once
        self.limit = min(_ACTIVE_CEILING, max(_ACTIVE, 4 * at_once))

    @property
    def ids(self) -> KeysView[int]:
        """Ids of all that is on the board: waiting, in flight or not yet settled."""
        return self._active.keys()

    @property
    def room(self) -> int:
        """How many more may be added."""
        if self._bytes >= self.byte_limit and self.waiting >= self.minimum:
            return 0
        return max(0, self.limit - len(self._active))

    @property
    def hungry(self) -> bool:
        """Whether so little waits that it is worth a call to the index to have more."""
        if self.waiting > self.limit // 2 or not self.room:
            return False
        return self._bytes <= self.byte_limit // 2 or self.waiting < self.minimum

    def add(self, items: Iterable[Waiting]) -> bool:
        """Puts instances up for sending; False when some had no room (they stay in the queue)."""
        for item in items:
            if item.ref.id in self._active:
                continue
            if not self.room:
                return False
            self._active[item.ref.id] = item
            self._enqueue(item, front=False)
        return True

    def take(
        self, accepts: Container[Proposal], study: str | None, only: str | None = None
    ) -> tuple[Waiting, str] | None:
        """The next instance whose pair is in ``accepts``, and the study that it belongs to.

        Of the highest priority; of ``study``, which the caller has been sending, if there is
        one; else of a study that nobody sends, oldest first; else of the oldest.  The caller
        counts as working on the study returned until it takes from another or calls `leave`.
        With ``only`` it is of that study, or None.
        """
        best = self._choose(accepts, study, only)
        return None if best is None else self._withdraw_one(best, best.items[0], study)

    def take_least_tried(
        self, accepts: Container[Proposal], study: str | None, only: str | None = None
    ) -> tuple[Waiting, str] | None:
        """As `take`, but what was tried least: what a probe should risk an attempt of.

        Always the first would use up its attempts in a long outage, and if that one is what the
        peer cannot take, would keep the destination down for all.
        """
        best: tuple[_Group, Waiting] | None = None
        for group in self._order:
            if group.pair in accepts and (only is None or group.study == only):
                for item in group.items:
                    if best is None or item.attempts < best[1].attempts:
                        best = group, item
        return None if best is None else self._withdraw_one(*best, study)

    def leave(self, study: str | None) -> None:
        """The caller of `take` works no longer on ``study``."""
        if study is None:
            return
        left = self._workers.get(study, 0) - 1
        if left > 0:
            self._workers[study] = left
        else:
            self._workers.pop(study, None)

    def put_back(self, item: Waiting) -> None:
        """Returns an instance that was taken but not sent; it goes first in its study."""
        if item.ref.id in self._active:
            self._enqueue(item, front=True)

    def settled(self, instance_ids: Iterable[int]) -> None:
        """The index knows the fate of these: they leave the board."""
        for instance_id in instance_ids:
            self._active.pop(instance_id, None)

    def pairs(self, but: Container[str] = ()) -> list[Proposal]:
        """Distinct pairs of what waits, but for the studies in ``but``, the most urgent first."""
        return list(dict.fromkeys(group.pair for group in self._order if group.study not in but))

    def pairs_of(self, study: str) -> set[Proposal]:
        """Distinct pairs of what waits of one study."""
        return {group.pair for group in self._order if group.study == study}

    def study_for(self, pair: Proposal, but: Container[str], *, least_tried: bool) -> str | None:
        """The study to send next of those that have ``pair``, but for those in ``but``."""
        groups = [g for g in self._order if g.pair == pair and g.study not in but]
        if least_tried:
            groups.sort(key=lambda group: min(item.attempts for item in group.items))
        return groups[0].study if groups else None

    def outranked(self, study: str, but: Container[str]) -> bool:
        """Whether something of higher priority than all of ``study`` waits, of none in ``but``."""
        other: int | None = None
        for group in self._order:
            if group.study == study:
                return other is not None and other < group.rank[0]
            if other is None and group.study not in but:
                other = group.rank[0]
        return False

    @property
    def lowest(self) -> int | None:
        """The priority of the least urgent instance that waits."""
        return -self._order[-1].rank[0] if self._order else None

    def first_pair(self) -> Proposal | None:
        """The pair of the most urgent instance that waits."""
        return self._order[0].pair if self._order else None

    def withdraw(self, pair: Proposal) -> list[Waiting]:
        """Takes off everything that waits with this pair; it stays active until settled."""
        taken: list[Waiting] = []
        for group in [group for group in self._order if group.pair == pair]:
            taken.extend(group.items)
            self._remove(group)
        self.waiting -= len(taken)
        self._bytes -= sum(item.ref.length for item in taken)
        return taken

    def shed(self, allows: Callable[[int], bool]) -> int:
        """Forgets what waits with a priority that is not allowed; returns how many that were."""
        count = 0
        for group in [group for group in self._order if not allows(-group.rank[0])]:
            for item in group.items:
                del self._active[item.ref.id]
                self._bytes -= item.ref.length
            count += len(group.items)
            self._remove(group)
        self.waiting -= count
        return count

    def clear(self) -> int:
        """Forgets what waits (the queue still has it); returns how many that were."""
        count = self.waiting
        for group in self._order:
            for item in group.items:
                del self._active[item.ref.id]
        self._order.clear()
        self._groups.clear()
        self.waiting = self._bytes = 0
        return count

    def _choose(
        self, accepts: Container[Proposal], study: str | None, only: str | None
    ) -> _Group | None:
        best: _Group | None = None
        for group in self._order:
            if best is not None and group.rank[0] > best.rank[0]:
                break
            if group.pair not in accepts or (only is not None and group.study != only):
                continue
            if group.study == study:
                return group
            if best is None or (best.study in self._workers and group.study not in self._workers):
                best = group
                if study is None and group.study not in self._workers:
                    break
        return best

    def _withdraw_one(self, group: _Group, item: Waiting, study: str | None) -> tuple[Waiting, str]:
        group.items.remove(item)
        self.waiting -= 1
        self._bytes -= item.ref.length
        if not group.items:
            self._remove(group)
        if group.study != study:
            self.leave(study)
            self._workers[group.study] = self._workers.get(group.study, 0) + 1
        return item, group.study

    def _enqueue(self, item: Waiting, *, front: bool) -> None:
        key = (item.priority, item.study_instance_uid, proposal(item))
        group = self._groups.get(key)
        if group is None:
            self._sequence += 1
            # A group that is put back goes before all of its priority: it was first before.
            order = -self._sequence if front else self._sequence
            group = _Group((-item.priority, order), key[1], key[2])
            self._groups[key] = group
            insort(self._order, group)
        if front:
            group.items.appendleft(item)
        else:
            group.items.append(item)
        self.waiting += 1
        self._bytes += item.ref.length

    def _remove(self, group: _Group) -> None:
        group_key = (-group.rank[0], group.study, group.pair)
        del self._groups[group_key]
        self._order.remove(group)
