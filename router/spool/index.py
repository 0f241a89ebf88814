"""The index: which instances the spool has, where they are to go and how that went.

Derived data behind a narrow interface.  Instances are written to it after they are durable in
the spool and are added anew from there when it is lost; what lives here alone are the fates of
deliveries, whose loss means sending again, never losing.

Synchronous, and for one thread at a time: its owner runs it in a thread of its own.  Must not
know files other than its own, nor DICOM: UIDs are kept and compared.

Any method may raise SpoolFull (no space; nothing was changed), IndexDamaged (the file is corrupt:
move it aside and rebuild; the next `Index.open` says so again until that was done) or another
SpoolError (nothing was changed).
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from router.spool.index_add import Adder
from router.spool.index_control import Control
from router.spool.index_database import Database, Names, move_aside
from router.spool.index_deliver import Queues
from router.spool.index_keep import Keep
from router.spool.index_read import Reading
from router.spool.index_select import Selector
from router.spool.index_types import (
    Account,
    AddResult,
    Changed,
    DeliveryState,
    Disposition,
    Event,
    Filter,
    InstanceRow,
    Outcome,
    Purged,
    QueueItem,
    QueueLine,
    Settled,
    Waiting,
)
from router.spool.record import InstanceMeta, Position, Ref

__all__ = [
    "Account",
    "AddResult",
    "Changed",
    "DeliveryState",
    "Disposition",
    "Event",
    "Filter",
    "Index",
    "InstanceRow",
    "Outcome",
    "Purged",
    "QueueItem",
    "QueueLine",
    "Settled",
    "Waiting",
    "move_aside",
]


class Index:
    """Made by `open`.  Times are seconds since the epoch, sizes bytes of data sets."""

    def __init__(self, database: Database) -> None:
        self._db = database
        destinations = Names(database, "destination")
        rules = Names(database, "rule")
        select = Selector(database, destinations)
        self._keep = Keep(database)
        self._adder = Adder(database, destinations, rules, self._keep)
        self._queues = Queues(database, destinations)
        self._control = Control(database, destinations, rules, select, self._queues)
        self._reading = Reading(database, destinations, rules, select)

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Open or create; an older schema is brought up to date.

        After an end that was not clean the file is checked, up to 512 MiB of it.  Raises
        IndexDamaged when the file is corrupt, was met so while it was used, or is something
        else, SpoolError when a newer version of the program made it.
        """
        database = Database(path)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Waits for the call under way, from whichever thread; again is harmless."""
        self._db.close()

    # -- what the spool needs

    def indexed_position(self) -> Position | None:
        """The end of the last record that was added; None when none was."""
        return self._adder.position

    def last_id(self) -> int:
        """The largest id that was ever added, purged or not; 0 when none was."""
        return self._adder.last_id

    def add(
        self,
        entries: Sequence[tuple[Ref, InstanceMeta]],
        position: Position,
        *,
        suppress_duplicates: bool,
        same_bytes: Callable[[Ref, Ref], bool],
    ) -> AddResult:
        """Add instances, in the order of commits, and move the position; one transaction.

        An instance that is there already keeps its fate and gets its place from ``entries``.
        The position never goes back.

        With ``suppress_duplicates``, a delivery becomes DUPLICATE when an earlier instance has
        the same study, SOP Class and Instance UID, transfer syntax, length, CRC and, says
        ``same_bytes(new, earlier)``, bytes, and that one's delivery to the same destination is
        READY, HELD or DELIVERED.  A DEAD or DROPPED one suppresses nothing, nor does one that
        was purged; only the first that qualifies is compared.  It is settled when that one is
        delivered; when that one becomes DEAD or DROPPED, it is READY in its place.
        """
        return self._adder.add(entries, position, suppress_duplicates, same_bytes)

    def known(self, ids: Sequence[int]) -> set[int]:
        """Those of ``ids`` that are in the index."""
        return self._keep.known(ids)

    def move(self, refs: Sequence[Ref]) -> None:
        """Note the new places of instances; those that are not in the index are passed over."""
        self._keep.move(refs)

    def copied_position(self) -> Position | None:
        """The place of the last copy that `move` was told of; None when there was none."""
        return self._keep.copied

    def refs_in(self, generation: int, limit: int) -> list[Ref]:
        """Instances whose record lies in a generation, by rising id."""
        return self._keep.refs_in(generation, limit)

    def generations_in_use(self) -> dict[int, tuple[int, int]]:
        """By generation: how many instances have their record there, and how many bytes of data
        sets lie there.  Large instances count, their bytes do not: those lie elsewhere."""
        return self._keep.generations_in_use()

    def purge(self, settled_before: float, limit: int, *, oldest_first: bool = True) -> Purged:
        """Delete up to ``limit`` instances that were settled at that time or before.

        Settled: discarded, or every delivery is DELIVERED, DROPPED or the DUPLICATE of one that
        waits no more.  A DEAD one waits for a person and is kept, as is whatever is held.
        ``oldest_first`` goes by the time of settling; otherwise by place, so that whole segments
        become free soonest.
        Their bytes may be overwritten after `barrier`.  In transactions of a thousand: an error
        is raised when nothing was deleted, else the result is what was, and may be short.
        """
        try:
            return self._keep.purge(settled_before, limit, oldest_first)
        finally:
            self._adder.forget_contexts()

    def barrier(self) -> None:
        """Return when everything committed so far would survive a power cut.

        A commit alone need not: it is behind the ack, and rebuilt.  But before a segment is
        written anew the index must have forgotten, durably, what lay in it: else a power cut
        could bring back rows that point at other instances' bytes, or deliveries undone whose
        bytes are gone.
        """
        self._db.barrier()

    # -- what forwarding needs

    def lease(
        self, destination: str, limit: int, now: float, exclude: Collection[int]
    ) -> list[Waiting]:
        """What is due for a destination, without the ids in ``exclude``; marks nothing.

        By priority, highest first; then by study, the one whose first instance came first, so
        that a study stays together even when a late instance joins it; then by age.  What comes
        due after a deferral takes its old place, up to 2,000 at a call.  What would wait for
        more than five minutes for a deferral that was noted in the future is due now: the clock was
        set back since.  That is looked for at the first call for a destination and whenever
        ``now`` is earlier than before.
        """
        return self._queues.lease(destination, limit, now, exclude)

    def next_due(self, destination: str, exclude: Collection[int] = ()) -> float | None:
        """When something may be sent: 0.0 when now, None when nothing waits."""
        return self._queues.next_due(destination, exclude)

    def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        """Note how deliveries ended, in one transaction.

        DELIVERED prevails over what an operator did meanwhile; anything else is ignored for a
        delivery whose fate is settled, and reported, as is an unknown one.  Where one becomes
        DEAD or DROPPED, the first that repeated it goes in its place.  Raises ValueError for a
        state that is not an outcome.
        """
        return self._queues.settle(outcomes)

    # -- what operators do

    def retry(
        self, which: Filter, *, at: float, who: str = "", limit: int | None = None
    ) -> Changed:
        """DEAD ones, and READY ones that wait for a time to come, become due now, their attempts
        forgotten."""
        return self._control.retry(which, at, who, limit)

    def drop(
        self, which: Filter, reason: str, *, at: float, who: str = "", limit: int | None = None
    ) -> Changed:
        """READY, HELD and DEAD ones become DROPPED.

        So do those that repeat one of them and meet the conditions other than a state; of the
        ones that do not, the first becomes READY in its place.
        """
        return self._control.drop(which, reason, at, who, limit)

    def hold(
        self,
        which: Filter,
        reason: str = "",
        *,
        at: float,
        who: str = "",
        limit: int | None = None,
    ) -> Changed:
        """READY ones become HELD."""
        return self._control.hold(which, reason, at, who, limit)

    def release(
        self, which: Filter, *, at: float, who: str = "", limit: int | None = None
    ) -> Changed:
        """HELD ones become READY, due now."""
        return self._control.release(which, at, who, limit)

    def route_held(
        self,
        which: Filter,
        destinations: Sequence[str],
        rule: str,
        *,
        at: float,
        who: str = "",
        priority: int = 0,
        limit: int | None = None,
    ) -> Changed:
        """Instances that are held as a whole (no rule matched, or quarantined) go to
        ``destinations`` after all; ``rule`` is what their deliveries name as the cause.  Counts
        instances.  Raises ValueError without a destination."""
        return self._control.route_held(which, destinations, rule, priority, at, who, limit)

    def discard_held(
        self, which: Filter, reason: str, *, at: float, who: str = "", limit: int | None = None
    ) -> Changed:
        """Instances that are held as a whole are discarded.  Counts instances."""
        return self._control.discard_held(which, reason, at, who, limit)

    # -- what is read

    def queue_summary(self) -> list[QueueLine]:
        """READY, HELD and DEAD of every destination ever routed to; cheap at any length."""
        return self._reading.queue_summary()

    def queue_list(
        self, which: Filter, limit: int, after: tuple[int, int] | None = None
    ) -> list[QueueItem]:
        """Deliveries by instance; open ones unless the filter names another state."""
        return self._reading.queue_list(which, limit, after)

    def instances(self, which: Filter, limit: int, after: int = 0) -> list[InstanceRow]:
        """Instances by rising id, from behind the id ``after``, without deliveries and events."""
        return self._reading.instances(which, limit, after)

    def instance(self, instance_id: int) -> InstanceRow | None:
        """One with its deliveries and what operators did to it; None when not in the index."""
        return self._reading.instance(instance_id)

    def events(self, limit: int) -> list[Event]:
        """What operators did, latest first; 10,000 are kept."""
        return self._reading.events(limit)

    def account(self, *, audit: bool = False) -> Account:
        """Where everything ever received is, from the running counts.

        ``audit`` also counts the rows, which takes seconds with a million of them.
        """
        return self._reading.account(audit)
