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

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from router.spool.errors import IndexDamaged
from router.spool.index_add import Adder
from router.spool.index_check import disagreement
from router.spool.index_commitments import Commitments
from router.spool.index_database import Database, move_aside
from router.spool.index_divert import Diversion
from router.spool.index_expire import Expiry
from router.spool.index_hours import begin_hours
from router.spool.index_keep import Keep
from router.spool.index_operated import Operated
from router.spool.index_peers import Peer
from router.spool.index_promises import Promises
from router.spool.index_read import Reading
from router.spool.index_retain import Choice, Kind
from router.spool.index_soon import Look, Soon, SoonGates
from router.spool.index_tables import Tables
from router.spool.index_types import (
    Account,
    AddResult,
    Changed,
    DeliveryState,
    Disposition,
    Event,
    Expired,
    Filter,
    Gap,
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


class Index(Operated):
    """Made by `open`.  Times are seconds since the epoch, sizes bytes of data sets."""

    def __init__(self, database: Database) -> None:
        tables = Tables.of(database)
        super().__init__(tables)
        destinations, plans = tables.destinations, tables.plans
        self._db = database
        self._gates = tables.gates
        self._queues = tables.queues
        self._keep = Keep(database)
        self._soon_gates = SoonGates(database, self._gates, plans)
        self._peers = tables.peers
        self._adder = Adder(tables, self._keep)
        self._divert = Diversion(database, destinations, plans, self._gates)
        self._expiry = Expiry(database, destinations, self._gates)
        self.commitments = Commitments(database, destinations, self._gates)
        """What destinations took and have not committed yet."""
        self.promises = Promises(database, destinations, self._adder.overtaken)
        self._reading = Reading(tables)
        self._forgot = ""  # what is wrong with it after a sync of its log that failed

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Open or create; an older schema is brought up to date.

        A file that was closed is compared with what was noted then (`index_seal`).  Any other is
        looked through, if it has no more than 512 MiB, and its tables and counts are compared
        (`index_check`).  Raises IndexDamaged when it is corrupt, was met so while it was used, or
        is something else, SpoolError when a newer version of the program made it.
        """
        database = Database(path)
        try:
            index = cls(database)
            if not database.sealed:
                index._check()
            return index
        except BaseException:
            database.close(seal=False)
            raise

    def _check(self) -> None:
        """Raises IndexDamaged when its parts do not agree."""
        if what := disagreement(self._db):
            raise self._db.met_damaged(what)

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
        READY, HELD, UNCOMMITTED or DELIVERED.  A DEAD or DROPPED one suppresses nothing, nor one
        that was purged, nor a delivery to another peer of that name, see `take_peers`; only the
        first that qualifies is compared.  It is settled when that one is
        delivered; when that one becomes DEAD or DROPPED, it is READY in its place.  For a plan
        with members, the delivery may be to any of them.
        """
        return self._adder.add(entries, position, suppress_duplicates, same_bytes)

    def known(self, ids: Sequence[int]) -> set[int]:
        """Those of ``ids`` that are in the index."""
        return self._keep.known(ids)

    def take_peers(self, peers: Mapping[str, Peer], at: float) -> list[str]:
        """Which peer (host, port, AE title) each destination is from now on; those that were
        another before.  What was added until now and is DELIVERED or UNCOMMITTED there makes
        nothing a duplicate any more; what repeats one that is settled DELIVERED by a peer of before
        goes in its place.  What an error leaves unwritten holds, and is written with what is
        settled next."""
        return self._peers.take(peers, at, self._adder.highest)

    def figures(self, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Length and CRC of those of ``ids`` that are in the index."""
        return self._keep.figures(ids)

    def places(self, ids: Sequence[int]) -> dict[int, Ref]:
        """Where the records of those of ``ids`` lie that are in the index."""
        return self._keep.places(ids)

    def at(self, places: Sequence[Position]) -> set[Position]:
        """Those where the record of an instance of the index lies."""
        return self._keep.at(places)

    def move(self, refs: Sequence[Ref]) -> None:
        """Note the new places of instances; those that are not in the index are passed over."""
        self._keep.move(refs)

    def copied_position(self) -> Position | None:
        """The place of the last copy that `move` was told of; None when there was none."""
        return self._keep.copied

    def gap(self) -> Gap | None:
        """What `note_gap` noted last.

        It goes with the index when that is put back from a copy: the notes beside the spool are by
        then those of another time.
        """
        return self._keep.gap

    def note_gap(self, gap: Gap | None) -> None:
        """Note what may be missing before the position, because it could not be read."""
        self._keep.note_gap(gap)

    def destinations(self) -> list[str]:
        """What something was ever routed to, configured still or not."""
        return self._reading.destinations()

    def begin_hours(self) -> None:
        """Note that of what was purged before now nothing is counted by hour: it was made anew."""
        begin_hours(self._db)

    def made_anew(self) -> int:
        """The largest id of when it was made anew, 0 where it never was: of what was purged by then
        nothing is known."""
        return self._keep.anew

    def note_anew(self, last_id: int) -> None:
        """It has been made anew, and ids came to that until now."""
        self._keep.note_anew(last_id)

    def refs_in(self, generation: int, limit: int) -> list[Ref]:
        """Instances whose record lies in a generation, by rising id."""
        return self._keep.refs_in(generation, limit)

    def generations_in_use(self) -> dict[int, tuple[int, int]]:
        """By generation: how many instances have their record there, and how many bytes of data
        sets lie there.  Large instances count, their bytes do not: those lie elsewhere."""
        return self._keep.generations_in_use()

    def check_free(self, generation: int) -> None:
        """Raises IndexDamaged when a record lies in a generation that `generations_in_use` does not
        name."""
        self._keep.check_free(generation)

    def look_through(self) -> None:
        """Before something is given up that it does not know, once: it may be what it was when it
        was closed, so that `open` did not, and have been damaged by then.  Raises IndexDamaged."""
        if self._db.sealed:
            self._db.look_through()
            self._check()

    def purge(
        self,
        settled_before: float,
        limit: int,
        *,
        oldest_first: bool = True,
        now: float | None = None,
        most: int | None = None,
        discarded_only: bool = False,
    ) -> Purged:
        """Delete up to ``limit`` instances that were settled at that time or before.

        Settled: discarded, or every delivery is DELIVERED, DROPPED or the DUPLICATE of one that
        waits no more.  A DEAD one waits for a person and is kept, as is whatever is held.
        With ``now``, those that a rule keeps for a time of its own go by that time instead.
        ``most``: no more than it takes to make up so many bytes.  ``oldest_first`` goes by the
        time of settling; otherwise by place, so that whole segments become free soonest.
        Their bytes may be overwritten after `barrier`.  In transactions of a thousand: an error
        is raised when nothing was deleted, else the result is what was, and may be short.
        """
        kind: Kind = "discarded" if discarded_only else "all"
        choice = Choice(settled_before, now, kind, oldest_first)
        try:
            return self._keep.purge(choice, limit, most)
        finally:
            self._adder.forget_contexts()

    def aged(
        self,
        settled_before: float,
        limit: int,
        *,
        now: float | None = None,
        most: int | None = None,
        exclude: Collection[int] = (),
        after: tuple[float, int] | None = None,
    ) -> list[int]:
        """Those that `purge` would delete, oldest first, but for discarded ones and ``exclude``;
        only those ``after`` a time of settling and a number."""
        choice = Choice(settled_before, now, "routed", exclude=exclude, after=after)
        return self._keep.aged(choice, limit, most)

    def purge_these(self, ids: Collection[int]) -> Purged:
        """Delete those of ``ids`` that are settled, in one transaction; see `purge`."""
        try:
            return self._keep.purge_these(ids)
        finally:
            self._adder.forget_contexts()

    def oldest_settled(self) -> float | None:
        """When the one was settled that was settled first and is still here; None without one."""
        return self._keep.oldest_settled()

    def barrier(self) -> None:
        """Return when everything committed so far would survive a power cut.

        A commit alone need not: it is behind the ack, and rebuilt.  But before a segment is
        written anew the index must have forgotten, durably, what lay in it: else a power cut
        could bring back rows that point at other instances' bytes, or deliveries undone whose
        bytes are gone.  Nor may it rest on what is not what was committed: after a sync that failed
        all of it is looked through.
        """
        if self._forgot:
            raise IndexDamaged(self._forgot)
        self._db.barrier()
        if self._db.log_failed:
            try:
                self._db.look_through()
                self._check()
                self._adder.look_again()
                self._keep.look_again()
            except IndexDamaged as damage:
                self._forgot = str(damage)  # a second look would cost as much
                raise
            self._db.log_failed = False

    def check_log(self) -> None:
        """Raises SpoolError when what is written does not get from the log to the index itself."""
        self._db.check_log()

    # -- what forwarding needs

    def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        """What is due for a destination, without the ids in ``exclude``; marks nothing.

        By priority, highest first; then by study, the one whose first instance came first, so
        that a study stays together even when a late instance joins it; then by age.  What comes
        due after a deferral takes its old place, up to 2,000 at a call.  What would wait for
        more than five minutes for a deferral that was noted in the future is due now: the clock was
        set back since.  That is looked for at the first call for a destination and whenever
        ``now`` is earlier than before.  With ``least_priority`` only what has that or more.
        """
        return self._queues.lease(destination, limit, now, exclude, least_priority)

    def next_due(
        self,
        destination: str,
        exclude: Collection[int] = (),
        least_priority: int | None = None,
    ) -> float | None:
        """When something may be sent: 0.0 when now, None when nothing waits."""
        return self._queues.next_due(destination, exclude, least_priority)

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

    def soon_gates(self, look: Look) -> Soon:
        """Of `gates`, those to be looked after now: all, or when there are more than
        ``look.whole`` the choice that it asks for, and those of schedules.

        An arrival that seems to lie ahead of ``look.now`` by a minute or more, as after the clock
        was set back, counts as one of now where not all are given.
        """
        return self._soon_gates.soon(look)

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
        give_way: float | None = None,
        *,
        urgent: Mapping[str, int] = MappingProxyType({}),
        gone: bool = False,
    ) -> Moved:
        """Move READY deliveries at ``destination`` (due, deferred or gated) to a better member.

        That is, of the members in their plan's order, the first that is in ``up`` and has no
        delivery of that instance; when that is ``destination`` itself, or there is none, it
        stays.  With the mode ``first_available`` it stays while ``destination`` is up.  Due at
        once unless it was behind a gate: then it is behind one like that, at the other.  Attempts
        are kept.  What repeats it goes along where its own plan allows that, else the first
        of those that may not goes by itself.  Where more than a thousand have nobody, one that
        becomes READY again later may stay for a minute before it is looked at.

        With ``keep`` in its plan it stays where some of its study was delivered, unless
        ``destination`` is ``gone``: not configured any more, and so never up again.  While
        ``destination`` is up, what it refused (`Outcome.refused`, the plan's ``on_refusal``) and
        what waits ``give_way`` seconds or more for its next attempt go to the best other member
        that has not had its try, due at once, their attempts forgotten.

        The destinations in ``urgent`` take only what has that priority or more; where
        ``destination`` is one and not ``up``, that stays.
        """
        return self._divert.divert(
            destination, up, exclude, at, limit, give_way, urgent=urgent, gone=gone
        )

    def expire(
        self,
        destination: str,
        before: float,
        reason: str,
        exclude: Collection[int],
        at: float,
        limit: int = 2000,
        *,
        after: int = -1,
    ) -> Expired:
        """READY deliveries at ``destination`` that came before a time become DEAD, the oldest
        first, but for those behind a gate and the instances in ``exclude``; of those behind the
        instance ``after``, a bounded part at each call.

        One that an operator had tried again counts from then on until its next attempt.
        """
        return self._expiry.expire(destination, before, reason, exclude, at, limit, after)

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
