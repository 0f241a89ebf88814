"""What a value is compared with: exact text, a glob, a network.

Owns the patterns and the functions they compile to.  Every matcher's time is bounded by the
product of the lengths of pattern and value, whatever either holds.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

Matcher: TypeAlias = Callable[[str], bool]
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Exact:
    text: str


@dataclass(frozen=True, slots=True)
class Glob:
    """``*`` stands for any run of characters, none included, ``?`` for exactly one."""

    text: str


@dataclass(frozen=True, slots=True)
class Network:
    network: ipaddress.IPv4Network | ipaddress.IPv6Network


Pattern: TypeAlias = Exact | Glob | Network


def is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def matcher(pattern: Pattern) -> Matcher:
    """The pattern as a function of one value."""
    match pattern:
        case Exact(text):
            return text.__eq__
        case Glob(text):
            return glob_matcher(text)
        case Network(network):
            return _network_matcher(network)


def glob_matcher(glob: str) -> Matcher:
    """``glob`` as a function; case counts, and the whole value must match."""
    head, *middle = re.split(r"\*+", glob)
    if not middle:
        return re.compile(_literal(glob), re.DOTALL).fullmatch if "?" in glob else glob.__eq__  # type: ignore[return-value]
    tail = middle.pop()
    if not middle and "?" not in glob:
        return _bounded(head, tail)
    # Atomic groups: once the earliest place of a piece is found, no later one need be tried,
    # since a star follows it; without them `*a*a*a*a*b` backtracks for ever.
    pieces = "".join(f"(?>.*?{_literal(piece)})" for piece in middle)
    return re.compile(f"{_literal(head)}{pieces}.*{_literal(tail)}", re.DOTALL).fullmatch  # type: ignore[return-value]


def _literal(piece: str) -> str:
    return "".join("." if c == "?" else re.escape(c) for c in piece)


def _bounded(head: str, tail: str) -> Matcher:
    shortest = len(head) + len(tail)

    def matches(value: str) -> bool:
        return len(value) >= shortest and value.startswith(head) and value.endswith(tail)

    return matches


def _network_matcher(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Matcher:
    def matches(value: str) -> bool:
        address = parse_address(value)
        return address is not None and address in network

    return matches


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """The address of a peer, or None; IPv4 in IPv6 counts as IPv4, a zone is left out."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
