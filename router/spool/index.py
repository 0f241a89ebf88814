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
from router.spool.index_divert import Diversion
from router.spool.index_gates import Gates
from router.spool.index_keep import Keep
from router.spool.index_plans import Plans
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
    Gate,
    InstanceRow,
    Moved,
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
    "Gate",
    "Index",
    "InstanceRow",
    "Moved",
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
        plans = Plans(database)
        self._gates = Gates(database, destinations, plans)
        self._adder = Adder(database, destinations, rules, plans, self._gates, self._keep)
        self._queues = Queues(database, destinations, self._gates)
        self._divert = Diversion(database, destinations, plans, self._gates)
        self._control = Control(
            database, destinations, rules, plans, self._gates, select, self._queues
        )
        self._reading = Reading(database, destinations, rules, plans, self._gates, select)

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
        delivered; when that one becomes DEAD or DROPPED, it is READY in its place.  For a plan
        with members, the delivery may be to any of them.
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
        DEAD or DROPPED, the first that repeated it goes in its place, behind its own gate if that
        is shut.  Raises ValueError for a state that is not an outcome.
        """
        return self._queues.settle(outcomes)

    # -- what waits for more than its turn

    def gates(self) -> list[Gate]:
        """Those that are shut, in the order in which they were made.

        A delivery whose plan says ``after`` is READY behind a gate of its study or series, which
        it shares with others of the same destination and plan; one whose plan has a ``schedule``
        is behind a gate of that (too: after the other).  It is not due, whatever the time.
        Without a Study or Series Instance UID it is complete by itself.
        """
        return self._gates.gates()

    def open_gate(self, gate_id: int, limit: int = 2000) -> Moved:
        """Let through up to ``limit`` deliveries: to the gate of their schedule, if this is
        another and their plan has one, else they are due.

        When none is left the gate is gone; what comes later finds a new one, of another id, or
        the same one shut again with the next ``supplement`` number.  Harmless for one that is
        gone.  An opened schedule counts as open until `shut_gate`.
        """
        return self._gates.open(gate_id, limit)

    def shut_gate(
        self,
        destination: str | None,
        schedule: str,
        exclude: Collection[int] = (),
        limit: int = 2000,
    ) -> Moved:
        """Put READY deliveries whose plan names ``schedule`` back behind its gate, but for the
        instances in ``exclude``, which are being sent.

        From then on, until a gate of that schedule is opened, one that is settled READY
        goes behind it as well: that is not noted on the disk, so it is to be called at start for
        every schedule that is shut.  Cheap when there are none.
        """
        return self._gates.shut(destination, schedule, exclude, limit)

    def divert(
        self,
        destination: str,
        up: Collection[str],
        exclude: Collection[int],
        at: float,
        limit: int = 2000,
    ) -> Moved:
        """Move READY deliveries at ``destination`` (due, deferred or gated) to a better member.

        That is, of the members in their plan's order, the first that is in ``up`` and has no
        delivery of that instance; when that is ``destination`` itself, or there is none, it
        stays.  With the mode ``first_available`` it stays while ``destination`` is up.  Due at
        once unless it was behind a gate: then it is behind one like that, at the other.  Attempts
        are kept.  What repeats it goes along where its own plan allows that, else the first
        of those that may not goes by itself.  Where more than a thousand have nobody, one that
        becomes READY again later may stay for a minute before it is looked at.
        """
        return self._divert.divert(destination, up, exclude, at, limit)

    # -- what operators do

    def hasten(
        self, which: Filter, *, at: float, who: str = "", limit: int | None = None
    ) -> Changed:
        """Those behind gates are due now, and never behind one again."""
        return self._control.hasten(which, at, who, limit)

    def retry(
        self, which: Filter, *, at: float, who: str = "", limit: int | None = None
    ) -> Changed:
        """DEAD ones, and READY ones that wait for a time to come, become due now, their attempts
        forgotten.  Those behind a gate stay there, and one whose gate is shut, or that is to keep
        to a schedule, goes behind it."""
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
        """HELD ones become READY, due now, or behind their gate as with `retry`."""
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

    def came(self, study_instance_uid: str, series_instance_uid: str = "") -> int:
        """How many instances of a study, or of a series in it, are in the index, whatever was
        routed; those of one SOP Instance UID count once."""
        return self._reading.came(study_instance_uid, series_instance_uid)

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
