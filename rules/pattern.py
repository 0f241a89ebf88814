"""What a value is compared with: text, a glob, an expression, an interval, a list, a network.

Owns the patterns, and the functions that those of text compile to.  Every matcher's time is
bounded by the product of the lengths of pattern and value, whatever either holds.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from rules.regex import searcher
from rules.values import Kind, Lens, Scalar, composed, fold, name_group, name_groups, padded

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


@dataclass(frozen=True, slots=True)
class Affix:
    """A value that starts with, ends with or contains ``text``."""

    where: Literal["starts", "ends", "contains"]
    text: str


@dataclass(frozen=True, slots=True)
class Regex:
    """An expression that is found anywhere in the value (`rules.regex`)."""

    text: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Folded:
    """The same without letter case."""

    pattern: Exact | Glob | Affix


@dataclass(frozen=True, slots=True)
class Name:
    """A person name (PS3.4 §C.2.2.2.1): letter case does not count, nor do empty components at
    the end of a group, and any of the component groups may match.

    A text with ``=`` has groups of its own: each that is not empty must match its counterpart.
    """

    pattern: Exact | Glob | Affix | Regex


@dataclass(frozen=True, slots=True)
class Today:
    """A day reckoned from the one on which the instance is received: ``years``, then ``days``."""

    days: int = 0
    years: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    value: Scalar | Today
    included: bool


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``, None being no limit; never holds what is no value of the kind."""

    kind: Kind
    low: Bound | None
    high: Bound | None

    @property
    def relative(self) -> bool:
        """Whether it moves with the day."""
        return any(b is not None and isinstance(b.value, Today) for b in (self.low, self.high))


@dataclass(frozen=True, slots=True)
class Listed:
    """The entries of a list of ``lists:``, each looked at as the value is."""

    name: str
    lens: Lens = "text"


Textual: TypeAlias = Exact | Glob | Affix | Regex | Folded | Name | Network
"""Patterns whose answer depends on the value alone."""
Pattern: TypeAlias = Textual | Interval | Listed


def canonical_pattern(pattern: Pattern) -> list[object]:
    """What a version is computed from."""
    if isinstance(pattern, Name) and isinstance(pattern.pattern, Exact | Glob):
        inner = pattern.pattern
        return ["name", type(inner).__name__.lower(), "=".join(name_groups(inner.text))]
    return _canonical(pattern)


def _canonical(value: object) -> list[object]:
    found: list[object] = [type(value).__name__.lower()]
    for each in fields(value):  # type: ignore[arg-type]
        part = getattr(value, each.name)
        found.append(_canonical(part) if is_dataclass(part) else str(part))
    return found


def is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def matcher(pattern: Textual) -> Matcher:
    """The pattern as a function of one value."""
    match pattern:
        case Exact(text):
            return text.__eq__
        case Glob(text):
            return glob_matcher(text)
        case Affix(where, text):
            return _affix(where, text)
        case Regex(text, ignore_case):
            return searcher(text, ignore_case)
        case Folded(inner):
            matches = matcher(_folded(inner))
            return lambda value: matches(fold(value))
        case Name(inner):
            return _name_matcher(inner)
        case Network(network):
            return _network_matcher(network)


def _folded(pattern: Exact | Glob | Affix) -> Exact | Glob | Affix:
    if isinstance(pattern, Affix):
        return Affix(pattern.where, fold(pattern.text))
    return type(pattern)(fold(pattern.text))


def _affix(where: str, text: str) -> Matcher:
    if where == "contains":
        return lambda value: text in value
    if where == "starts":
        return lambda value: value.startswith(text)
    return lambda value: value.endswith(text)


def _name_matcher(pattern: Exact | Glob | Affix | Regex) -> Matcher:
    if isinstance(pattern, Regex):
        found = searcher(composed(pattern.text), ignore_case=True)
        return lambda value: any(found(composed(group.rstrip("^ "))) for group in value.split("="))
    if isinstance(pattern, Affix):
        # Spaces at the ends may be what is looked for: the text is not trimmed as a name is.
        part = _affix(pattern.where, fold(pattern.text))
        return lambda value: any(part(group) for group in name_groups(value))
    glob = isinstance(pattern, Glob)
    wanted = [_group_matcher(group, glob) for group in pattern.text.split("=")]
    if len(wanted) == 1:
        (one,) = wanted
        return lambda value: any(one is not None and one(group) for group in name_groups(value))

    def matches(value: str) -> bool:
        groups = name_groups(value)
        return all(
            want is None or (at < len(groups) and want(groups[at]))
            for at, want in enumerate(wanted)
        )

    return matches


def _group_matcher(text: str, glob: bool) -> Matcher | None:
    """A component group as a function of a normalised one; None when it is empty."""
    group = name_group(text)
    if not group:
        return None
    if not glob:
        return group.__eq__
    matches = glob_matcher(group)
    # "Doe^*" means Doe without a first name too, though the caret is not in the value.
    return lambda value: value != "" and (matches(value) or matches(padded(value)))


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
