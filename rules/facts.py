"""What a condition may say of an association and of what was proposed on it.

Owns the values of `calling_ae`, `remote`, `source`, `sop_class` and their like: names that are
checked, networks, UIDs by name.
"""

import ipaddress
from collections.abc import Callable, Mapping

from rules.known import Known
from rules.nearest import did_you_mean
from rules.pattern import Exact, Glob, Network, Pattern, glob_matcher, is_glob
from rules.refusal import Refusal
from rules.rule import Fact
from rules.uids import UIDKind, is_uid, is_uid_glob, names, resolve

FactReader = Callable[[str, str, Known | None], tuple[Pattern, ...]]
"""Of the text, the text as messages show it, and what is known, makes patterns; raises Refusal."""
TEXT_FACTS: frozenset[Fact] = frozenset({"calling_ae", "called_ae", "remote", "tag"})
"""Those that regexes, affixes and lists make sense for."""

_SAMPLES: Mapping[UIDKind, str] = {
    "SOP Class": "CTImageStorage",
    "Transfer Syntax": "JPEG2000Lossless, or short as jpeg-2000-lossless",
}
_SORT_WORDS: Mapping[UIDKind, str] = {
    "SOP Class": "SOP class",
    "Transfer Syntax": "transfer syntax",
}


def read_fact(fact: Fact, text: str, shown: str, known: Known | None) -> tuple[Pattern, ...]:
    """What a fact's value is compared with: plain text or a glob.  Raises Refusal."""
    return _READERS[fact](text, shown, known)


def _ae_title(text: str, shown: str, _known: Known | None) -> tuple[Pattern, ...]:
    if len(text.replace("*", "")) > 16:
        fix = _several(text) or "shorten it"
        raise Refusal(f"no AE title can match {shown}: they have 16 characters", fix)
    if fix := _several(text):
        raise Refusal(f"{shown} is several AE titles in one text", f"{fix}, or '= {text}' for one")
    return (_plain_or_glob(text),)


def _several(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    return f"write [{', '.join(parts)}]" if len(parts) > 1 and all(parts) else ""


def _remote(text: str, shown: str, known: Known | None) -> tuple[Pattern, ...]:
    if is_glob(text):
        if known is not None and not any(map(glob_matcher(text), known.remotes)):
            names = sorted(known.remotes)[:10]
            raise Refusal(f"no remote's name matches {shown}", f"known are {', '.join(names)}")
        return (Glob(text),)
    if known is not None and text not in known.remotes:
        fix = did_you_mean(text, known.remotes) or "add it under 'remotes'"
        raise Refusal(f"no remote is called {shown}", fix)
    return (Exact(text),)


def _source(text: str, shown: str, _known: Known | None) -> tuple[Pattern, ...]:
    network = _network(text)
    if network is not None:
        return (Network(network),)
    wider = _network(text, strict=False)
    fix = "write an address such as 10.1.2.3, or a network such as 10.1.0.0/16"
    if wider is not None:
        fix = f"did you mean {str(wider)!r}?"
    raise Refusal(f"source {shown} is not an address or network", fix)


def _uid(sort: UIDKind, key: str) -> FactReader:
    def read(text: str, shown: str, _known: Known | None) -> tuple[Pattern, ...]:
        if is_glob(text) and is_uid_glob(text):
            return (Glob(text),)
        uids = resolve(sort, text)
        if not uids:
            what = "matches no" if is_glob(text) else "is not a UID or the name of a"
            fix = "names are those of PS3.6, such as " + _SAMPLES[sort]
            if not is_glob(text):
                fix = did_you_mean(text, names(sort)) or fix
            if not is_uid(text) and is_uid_glob(text):
                fix = "a UID has numbers between dots, 64 characters at most"
            raise Refusal(f"{key} {shown} {what} {_SORT_WORDS[sort]}", fix)
        return tuple(map(Exact, uids))

    return read


def _tag(text: str, shown: str, _known: Known | None) -> tuple[Pattern, ...]:
    bad = next((c for c in text if not (c.isascii() and (c.isalnum() or c in "_.-*?"))), None)
    if bad is not None or len(text.replace("*", "")) > 32:
        raise Refusal(
            f"no label can match {shown}",
            "labels have 32 characters at most, of letters, digits, '_', '.' and '-'",
        )
    return (_plain_or_glob(text),)


def _plain_or_glob(text: str) -> Pattern:
    return Glob(text) if is_glob(text) else Exact(text)


def _network(
    text: str, strict: bool = True
) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        network = ipaddress.ip_network(text, strict=strict)
    except ValueError:
        return None
    # Peers are compared as IPv4 when they come by way of IPv6 (`rules.pattern.parse_address`).
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


_READERS: dict[Fact, FactReader] = {
    "calling_ae": _ae_title,
    "called_ae": _ae_title,
    "remote": _remote,
    "source": _source,
    "sop_class": _uid("SOP Class", "sop_class"),
    "transfer_syntax": _uid("Transfer Syntax", "transfer_syntax"),
    "tag": _tag,
}
