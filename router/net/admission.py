"""Who may associate with which local AE.

Owns the decision on an A-ASSOCIATE-RQ before its presentation contexts: names, addresses and
limits.  Pure: counts come from the caller.  Rejections are those of PS3.8 table 9-21.
"""

import fnmatch
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.net.settings import LocalAE, NetworkSettings, Remote
from router.ul import AAssociateRJ, AAssociateRQ

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LEAST_MAXIMUM_LENGTH = 8
"""Bytes of a P-DATA-TF's variable field that a PDV with two bytes of a value takes (§D.1)."""

_LONGEST_UID = 64

_NO_REASON = AAssociateRJ(result=1, source=1, reason=1)
_CALLING_AE = AAssociateRJ(result=1, source=1, reason=3)
_CALLED_AE = AAssociateRJ(result=1, source=1, reason=7)
_LIMIT = AAssociateRJ(result=2, source=3, reason=2)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The local AE that was called, and the configured name of the caller or ""."""

    local: LocalAE
    remote: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """`kind` is a fixed word for counters; `text` says to the operator what and how to mend it."""

    rejection: AAssociateRJ
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Load:
    """Associations that are open now: in all, with a local AE, from a remote; from an address,
    of callers that are no remote by name."""

    total: int
    by_local: Mapping[str, int]
    by_remote: Mapping[str, int]
    by_address: Mapping[str, int] = field(default_factory=dict)


class _Gate:
    """``accept:`` of one local AE, compiled."""

    def __init__(self, local: LocalAE, remotes: Mapping[str, Remote]) -> None:
        self.local = local
        self._open = local.accept == "any"
        self._names: set[str] = set()
        self._networks: list[Network] = []
        self._globs: list[re.Pattern[str]] = []
        for entry in () if local.accept == "any" else local.accept:
            if entry in remotes:
                self._names.add(entry)
            elif (network := parse_network(entry)) is not None:
                self._networks.append(network)
            else:
                self._globs.append(re.compile(fnmatch.translate(entry)))

    def admits(self, calling_ae: str, source: str, names: Sequence[str]) -> bool:
        if self._open or any(name in self._names for name in names):
            return True
        if any(glob.match(calling_ae) for glob in self._globs):
            return True
        return _within(source, self._networks)


@dataclass(frozen=True, slots=True)
class _Caller:
    """A remote as it may call us; `host` is empty when it is a name, or `networks` are given."""

    name: str
    networks: list[Network]
    host: list[Network]


class Admission:
    """Made anew from the configuration at each reload; associations that stand keep theirs."""

    def __init__(
        self,
        locals_: Sequence[LocalAE],
        remotes: Mapping[str, Remote],
        settings: NetworkSettings,
    ) -> None:
        self._gates = {(ae.listen, ae.ae_title): _Gate(ae, remotes) for ae in locals_}
        self._titles: dict[str, list[str]] = {}
        for ae in locals_:
            self._titles.setdefault(ae.listen, []).append(ae.ae_title)
        self._remotes = remotes
        self._by_title: dict[str, list[_Caller]] = {}
        for name, remote in remotes.items():
            networks = [n for a in remote.addresses if (n := parse_network(a)) is not None]
            host = parse_network(remote.host) if remote.host and not networks else None
            caller = _Caller(name, networks, [host] if host is not None else [])
            self._by_title.setdefault(remote.ae_title, []).append(caller)
        self._settings = settings

    def identify(self, calling_ae: str, source: str) -> list[str]:
        """Names of the remotes that this caller can be, the likeliest first.

        A remote with ``addresses`` calls from those alone.  Of the others, one whose ``host`` is
        the very address comes before those with the AE title alone, and rules out any whose host
        is another address.
        """
        candidates = self._by_title.get(calling_ae, [])
        known = [c.name for c in candidates if _within(source, c.networks)]
        by_host = [c.name for c in candidates if _within(source, c.host)]
        by_title = [c for c in candidates if not c.networks and c.name not in by_host]
        if by_host:
            by_title = [c for c in by_title if not c.host]
        # A host that is an address and not this one makes it less likely than none.
        by_title.sort(key=lambda c: bool(c.host))
        return known + by_host + [c.name for c in by_title]

    def decide(self, listen: str, rq: AAssociateRQ, source: str, load: Load) -> Admitted | Refusal:
        """Whether a request that came to the address `listen` from `source` is admitted."""
        called, calling = rq.called_ae_title, rq.calling_ae_title
        gate = self._gates.get((listen, called))
        if gate is None:
            here = ", ".join(self._titles.get(listen, ())) or "none"
            return Refusal(
                _CALLED_AE,
                "called_ae",
                f"called AE title {called!r} is not one of those at {listen} ({here}); "
                "correct it at the peer, or add it under local",
            )
        names = self.identify(calling, source)
        if not gate.admits(calling, source, names):
            return Refusal(
                _CALLING_AE,
                "calling_ae",
                f"{calling!r} at {source} is not in accept of {called}; add its remote's name, "
                "its AE title or its network there if it may send",
            )
        length = rq.user_information.maximum_length
        if 0 < length < LEAST_MAXIMUM_LENGTH:
            return Refusal(
                _NO_REASON,
                "maximum_length",
                f"{calling!r} announces a maximum length of {length} bytes, in which no answer "
                f"fits; set it to {LEAST_MAXIMUM_LENGTH} or more at the peer, or to 0 for no limit",
            )
        remote = names[0] if names else ""
        over = self._over(gate.local, remote, load)
        if over:
            return Refusal(_LIMIT, "limit", over)
        if not remote and (full := self._over_as_stranger(gate.local, source, load)):
            return full
        return Admitted(gate.local, remote)

    def _over(self, local: LocalAE, remote: str, load: Load) -> str:
        if load.total >= self._settings.max_associations:
            return f"{load.total} associations are open, network.max_associations allows no more"
        if load.by_local.get(local.ae_title, 0) >= local.max_associations:
            return (
                f"{local.max_associations} associations are open with {local.ae_title}, "
                "its max_associations allows no more"
            )
        cap = self._remotes[remote].max_associations if remote else None
        if cap is not None and load.by_remote.get(remote, 0) >= cap:
            return f"{cap} associations of {remote} are open, its max_associations allows no more"
        return ""

    def _over_as_stranger(self, local: LocalAE, source: str, load: Load) -> Refusal | None:
        """What binds those who may call, but are no remote by name."""
        settings = self._settings
        limit = settings.address_limit
        if load.by_address.get(neighbourhood(source), 0) >= limit:
            return Refusal(
                _LIMIT,
                "limit_address",
                f"{limit} associations from {source} are open; give it a name under remotes, or "
                "raise network.max_per_address, if it needs more",
            )
        for count, cap, whose in (
            (load.total, settings.max_associations, "network"),
            (load.by_local.get(local.ae_title, 0), local.max_associations, local.ae_title),
        ):
            if count >= settings.open_to_all(cap):
                return Refusal(
                    _LIMIT,
                    "limit_reserve",
                    f"{count} associations are open, the rest of the {cap} of {whose} is kept for "
                    "remotes by name; give the caller a name under remotes, or lower "
                    "network.reserve",
                )
        return None


def is_plausible_uid(text: str) -> bool:
    """Whether a peer may use this as a UID: 1 to 64 printable ASCII characters.

    More than PS3.5 §9.1 allows, since systems are about that put letters into theirs.  What is
    beyond is no use to anybody: acceptors drop a whole association request for one such UID.
    """
    return 0 < len(text) <= _LONGEST_UID and all("!" <= c <= "~" for c in text)


def parse_network(text: str) -> Network | None:
    """The network or single address that `text` is, None when it is neither."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def neighbourhood(address: str) -> str:
    """What one peer can have all addresses of: an IPv6 address stands for its /64."""
    if ":" not in address or address.startswith("fe80:"):  # link-local: all neighbours share it
        return address
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def _within(source: str, networks: Sequence[Network]) -> bool:
    if not networks:
        return False
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return False
    return any(address.version == n.version and address in n for n in networks)
