"""Those around a gateway in its random lives: who sends to it, and whom it sends to.

Owns what each of them knows: what was acknowledged to the senders, and what every host has that
ever stood behind the name of a destination.  Says who did not get what is due to it.  Must not
know the spool, nor what the index says, but for what an operator dropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import permutations
from random import Random

from router.spool.index_peers import Peer
from router.spool.index_types import DeliveryState, Outcome, Waiting
from router.spool.plan import Plan
from router.spool.record import RouteMeta

NAMES = ("a", "b", "c", "d")
COMMITS = "c"
"""The destination that is asked for storage commitment."""
NIGHT = "night"
_HOSTS = (1, 2, 3)
_STUDY = "study-complete"

PLANS: dict[str, tuple[Plan, ...]] = {
    "a": (
        Plan(),
        Plan("failover", ("a", "b")),
        Plan("failover", ("a", "b"), keep="study"),
        Plan("failover", ("a", "b", "c"), on_refusal="next"),
        Plan("failover", ("a", "d"), keep="study", on_refusal="next"),
        Plan("failover", ("a", "b"), after=_STUDY),
    ),
    "b": (
        Plan(),
        Plan("balance", ("b", "c"), keep="study"),
        Plan(after=_STUDY, schedule=NIGHT),
        Plan(schedule=NIGHT),
    ),
    "c": (
        Plan(),
        Plan("failover", ("c", "b"), keep="study"),
        Plan("first_available", ("c", "d")),
        Plan("failover", ("c", "d"), after="series-complete", schedule=NIGHT, on_refusal="next"),
    ),
    "d": (
        Plan(),
        Plan("failover", ("d", "a"), keep="study", schedule=NIGHT),
        Plan("failover", ("d", "b", "a"), keep="study", on_refusal="next"),
    ),
}
"""Of what is routed to each first.  Plans overlap: a member of one is the first of another."""

_BUSY, _REFUSED, _HAS_IT = 0xA700, 0xC000, 0x0111


@dataclass(frozen=True, slots=True)
class Sent:
    """What was acknowledged; `hosts` stood behind the names then."""

    step: int
    id: int
    uid: str
    digest: bytes
    routes: tuple[RouteMeta, ...]
    hosts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Had:
    """What one host of a destination was given."""

    step: int
    destination: str
    host: int
    uid: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """What waited for one destination and was redirected to another, whose host is given.

    `stands` when that one was given it before and is still to commit: no other is to go.
    """

    step: int
    id: int
    destination: str
    host: int
    stands: bool = False


@dataclass
class World:
    """All of it.  A copy taken at a power cut is the world from which the next life goes on."""

    now: float = 1.7e9
    step: int = 0
    host: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 1))
    sent: list[Sent] = field(default_factory=list)
    had: list[Had] = field(default_factory=list)
    redirected: list[tuple[int, str, str]] = field(default_factory=list)
    """(step, from, to): what came before may be at the other destination instead."""
    moved: list[Moved] = field(default_factory=list)
    dropped: set[tuple[int, str]] = field(default_factory=set)
    """(id, destination): taken off the queue by an operator."""

    def copy(self) -> "World":
        """As it is now, whatever comes."""
        return replace(
            self,
            host=dict(self.host),
            sent=list(self.sent),
            had=list(self.had),
            redirected=list(self.redirected),
            moved=list(self.moved),
            dropped=set(self.dropped),
        )

    def next_step(self) -> int:
        self.step += 1
        return self.step

    def peers(self) -> dict[str, Peer]:
        """As `Index.take_peers` takes them."""
        return {name: (f"h{self.host[name]}", 104, name.upper()) for name in NAMES}

    def change_host(self, destination: str, chance: Random) -> None:
        """Another host stands behind a name from now on, maybe one that did before."""
        self.host[destination] = chance.choice([n for n in _HOSTS if n != self.host[destination]])

    def acknowledge(
        self, number: int, uid: str, data: bytes, routes: tuple[RouteMeta, ...]
    ) -> None:
        digest = sha256(data).digest()
        self.sent.append(Sent(self.next_step(), number, uid, digest, routes, dict(self.host)))

    def has(self, destination: str, host: int, uid: str) -> bool:
        """Whether a host has an instance of this UID, of whatever bytes."""
        return any(
            one.uid == uid and (one.destination, one.host) == (destination, host)
            for one in self.had
        )

    # -- an attempt

    def take(
        self,
        destination: str,
        waiting: Waiting,
        data: bytes | None,
        chance: Random,
    ) -> Outcome:
        """The host of now takes an instance or not, as chance will have it.

        `data` is None when there is nothing to send any more.
        """
        if data is None:
            return self._ended(destination, waiting, DeliveryState.DEAD, None)
        mood = chance.random()
        if mood < 0.2:
            due = self.now + chance.choice((1.0, 400.0))
            return self._ended(destination, waiting, DeliveryState.READY, _BUSY, due_at=due)
        if mood < 0.33:
            refused = chance.random() < 0.9
            return self._ended(destination, waiting, DeliveryState.DEAD, _REFUSED, refused=refused)
        known = self.has(destination, self.host[destination], waiting.sop_instance_uid)
        if known and chance.random() < 0.3:
            return self._knows(destination, waiting)
        self._keep(destination, waiting, data)
        if mood > 0.93:
            due = self.now + 5.0
            return self._ended(destination, waiting, DeliveryState.READY, None, due_at=due)
        asked = destination == COMMITS and chance.random() < 0.5
        state = DeliveryState.UNCOMMITTED if asked else DeliveryState.DELIVERED
        return self._ended(destination, waiting, state, 0)

    def take_surely(self, destination: str, waiting: Waiting, data: bytes | None) -> Outcome:
        """The host of now takes an instance, if there is something to send."""
        if data is None:
            return self._ended(destination, waiting, DeliveryState.DEAD, None)
        self._keep(destination, waiting, data)
        return self._ended(destination, waiting, DeliveryState.DELIVERED, 0)

    def _keep(self, destination: str, waiting: Waiting, data: bytes) -> None:
        step, host = self.next_step(), self.host[destination]
        digest = sha256(data).digest()
        self.had.append(Had(step, destination, host, waiting.sop_instance_uid, digest))

    def _knows(self, destination: str, waiting: Waiting) -> Outcome:
        """Its answer 0111: that may be what was sent before, or quite another instance."""
        return self._ended(destination, waiting, DeliveryState.DEAD, _HAS_IT, refused=True)

    def _ended(
        self,
        destination: str,
        waiting: Waiting,
        state: DeliveryState,
        status: int | None,
        *,
        due_at: float | None = None,
        refused: bool = False,
    ) -> Outcome:
        return Outcome(
            *(waiting.ref.id, destination, state, self.now, status, "", due_at),
            refused=refused,
            peer=self.peers()[destination],
        )

    # -- what is due to them

    def missing(self) -> list[str]:
        """What was acknowledged and is not where it should be, once nothing waits any more.

        It is at a destination when its bytes were given, after it came, to whichever host stood
        behind the name then; or before, if that host stood behind it when it came (what repeats
        it was no reason to send) or does now.
        """
        found = []
        for sent in self.sent:
            places = {one.destination for one in self.had if self._counts(sent, one)}
            moves = [(origin, to) for step, origin, to in self.redirected if step > sent.step]
            places |= {name for number, name in self.dropped if number == sent.id}
            wanted = [_allowed(route, moves) for route in sent.routes]
            if moves:  # two routes may end at one destination, and one delivery stands for both
                fine = all(names & places for names in wanted) and self._moved_too(sent)
            else:
                fine = _each_has_its_own(wanted, places)
            if not fine:
                routes = [(route.destination, route.plan) for route in sent.routes]
                found.append(
                    f"instance {sent.id} ({sent.uid}, step {sent.step}) is lost: routed to "
                    f"{routes}, redirected {moves}, it is at {sorted(places)}"
                )
        return found

    def _moved_too(self, sent: Sent) -> bool:
        """What was redirected went out since, or had been given to the very host before.

        The latest time counts: from where it was sent on it need not have gone out.
        """
        last = max((move.step for move in self.moved if move.id == sent.id), default=0)
        given = [one for one in self.had if _same(one, sent)]
        return all(
            any(
                one.step > move.step or (one.destination, one.host) == (move.destination, move.host)
                for one in given
            )
            for move in self.moved
            if (move.id, move.step) == (sent.id, last)
            and not move.stands
            and not any(number == sent.id for number, _ in self.dropped)
        )

    def _counts(self, sent: Sent, had: Had) -> bool:
        if not _same(had, sent):
            return False
        of_then = had.host == sent.hosts[had.destination]
        return had.step > sent.step or of_then or had.host == self.host[had.destination]


def _same(one: Had | Sent, other: Sent) -> bool:
    """Whether they are the same bytes of the same instance."""
    return (one.uid, one.digest) == (other.uid, other.digest)


def _allowed(route: RouteMeta, moves: Iterable[tuple[str, str]]) -> set[str]:
    """Where the delivery of a route may end."""
    names = {route.destination, *Plan.from_text(route.plan).members}
    pairs = set(moves)
    while more := {to for origin, to in pairs if origin in names} - names:
        names |= more
    return names


def _each_has_its_own(wanted: list[set[str]], places: set[str]) -> bool:
    return any(
        all(name in names for name, names in zip(chosen, wanted, strict=True))
        for chosen in permutations(sorted(places), len(wanted))
    )
