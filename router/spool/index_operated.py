"""What operators do, as a part of the index's interface.

Owns no more than the names; see `index_control`, `index_reroute` and `index_pauses`.
"""

from collections.abc import Collection, Sequence

from router.spool.index_control import Control
from router.spool.index_duplicates import SameBytes
from router.spool.index_pauses import Pauses
from router.spool.index_reroute import Reroute
from router.spool.index_tables import Tables
from router.spool.index_types import Changed, Filter, Pause, Rerouted
from router.spool.record import InstanceMeta


class Operated:
    """A base of `Index`.  ``at`` is when it was asked for, ``who`` by whom, both for the record;
    an action with a ``limit`` stops after so many and says so."""

    def __init__(self, tables: Tables) -> None:
        self._control = Control(tables)
        self._reroute = Reroute(tables)
        self._pauses = Pauses(tables.db)

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

    def ask_again(
        self,
        which: Filter,
        *,
        at: float,
        who: str = "",
        after: tuple[int, int] | None = None,
    ) -> Rerouted:
        """For UNCOMMITTED ones the destination is to be asked again now: one step.  What else was
        asked for with them is asked for with them again."""
        return self._control.ask_again(which, at, who, after)

    def drop(
        self, which: Filter, reason: str, *, at: float, who: str = "", limit: int | None = None
    ) -> Changed:
        """READY, HELD and DEAD ones become DROPPED; UNCOMMITTED ones where ``which`` says that
        state: nobody waits for their commitment any more.

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

    def resend(
        self,
        which: Filter,
        destinations: Sequence[str],
        rule: str,
        *,
        at: float,
        who: str = "",
        after: int = 0,
        until: int = 2**62,
        same_bytes: SameBytes | None = None,
    ) -> Rerouted:
        """Instances are sent to ``destinations`` (again), whatever became of them before, without
        waiting for anything: one step, over those with an id above ``after`` and up to ``until``.

        UNCOMMITTED ones too.  What is READY, HELD, or the DUPLICATE of what is or is sent again
        with it is left; that of what went and is not meant goes by itself.  With ``same_bytes``
        (see `Index.add`) one of the same bytes as one that waits there, or goes there in the same
        step, is its DUPLICATE, and left too; what was delivered is no reason not to send it.
        Raises ValueError without a destination.
        """
        step = after, until
        return self._reroute.resend(which, destinations, rule, at, who, step, same_bytes)

    def redirect(
        self,
        which: Filter,
        target: str,
        reason: str = "",
        exclude: Collection[int] = (),
        *,
        at: float,
        who: str = "",
        after: tuple[int, int] | None = None,
        same_bytes: SameBytes | None = None,
    ) -> Rerouted:
        """READY deliveries at ``which.destination`` (those in ``which.state``, if it is READY, HELD
        or DEAD) become DROPPED, with the reason, and are made to ``target`` instead: one step.

        What is behind a gate is behind one like that there.  Where ``target`` has a delivery of
        the instance that is not DROPPED or DEAD, nor DELIVERED to another peer of that name, that
        one stands for both.  What repeats one of them at ``which.destination`` goes along: it is a
        DUPLICATE at ``target`` of what stands there for that one.  With ``same_bytes`` what would
        have been a DUPLICATE there when it came is one (see `Index.add`).  The instances in
        ``exclude``, which are being sent, are left.  Raises ValueError for another state.
        """
        step = exclude, after
        return self._reroute.redirect(which, target, reason, step, at, who, same_bytes)

    def route_anew(
        self,
        decided: Sequence[tuple[int, InstanceMeta]],
        *,
        at: float,
        who: str = "",
        same_bytes: SameBytes | None = None,
    ) -> Rerouted:
        """Instances that are held since no rule matched go where these descriptions say, or are
        discarded; those that would be held again are left, and those that are not held any more.
        With ``same_bytes`` deliveries become DUPLICATE as those of new instances do.
        """
        return self._reroute.route_anew(decided, at, who, same_bytes)

    def pause(self, destination: str, reason: str, *, at: float, who: str = "") -> bool:
        """Note that nothing is to go to a destination; False when it was noted before."""
        return self._pauses.pause(destination, reason, at, who)

    def resume(self, destination: str, *, at: float, who: str = "") -> bool:
        """The reverse; False when it was not paused."""
        return self._pauses.resume(destination, at, who)

    def pauses(self) -> list[Pause]:
        """By name of the destination."""
        return self._pauses.pauses()
