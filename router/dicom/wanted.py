"""What a scan looks for: attributes by tag, by private creator, and inside sequences.

Owns the keys that name attributes, and what they ask for at each level of a data set: its top,
and the items of each sequence that one of them leads through.  Must not know the walk.

PS3.5 §7.8.1 (private elements and their creators), §7.5 (sequences).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias

from router.dicom.values import dictionary_vr, is_ambiguous, private_vr

CHARACTER_SET = 0x00080005
PIXEL_REPRESENTATION = 0x00280103
_BLOCKS = range(0x10, 0x100)
SPECIAL = -1


class PrivateStep(Protocol):
    """A private element by its creator, wherever that has its block; hashable.

    ``creator`` is without padding, ``element`` the low byte of the element number.
    """

    @property
    def group(self) -> int: ...
    @property
    def creator(self) -> str: ...
    @property
    def element(self) -> int: ...


Step: TypeAlias = int | PrivateStep
Path: TypeAlias = tuple[Step, ...]
Key: TypeAlias = Step | Path
"""A tag or a private element of the top level, or the steps to one inside sequences."""

_Tail: TypeAlias = tuple[Path, Key]
"""What is left of a path from some level on, and the key that the whole of it has."""


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """What is asked of one element.

    Its values are gathered under ``keys``; its items, if it is a sequence, are looked into for
    ``inner``.  ``kept`` says that it bears on how others of its level are read, ``creator`` that
    it may reserve a block of private elements.  ``vr`` is that of a dictionary.
    """

    vr: str
    keys: tuple[Key, ...] = ()
    inner: "Level | None" = None
    tails: frozenset[_Tail] = frozenset()
    kept: bool = False
    creator: bool = False


_CREATOR = (Want("LO", creator=True),)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """What is wanted of a data set, or of each item of a sequence.

    ``plain`` has the tags of which only the bytes are wanted, with the dictionary's VR; all
    else is in ``wants``.  ``keys`` has both by how the four bytes of a little endian tag read
    as one number (element above group): the tag of a plain one, else `SPECIAL`.  ``privates`` is
    for each group and creator what is wanted by the low byte of the element.  ``last`` is the
    highest tag that can be wanted.
    """

    plain: dict[int, str]
    wants: dict[int, tuple[Want, ...]]
    keys: dict[int, int]
    privates: dict[int, dict[str, dict[int, Want]]]
    last: int


def little(tag: int) -> int:
    """The four bytes of a little endian tag, read as one little endian number."""
    return (tag & 0xFFFF) << 16 | tag >> 16


@lru_cache(maxsize=64)
def top_level(wanted: frozenset[Key]) -> Level:
    """What is wanted of the data set itself, with what is needed to read the rest.

    Raises ValueError for a path without steps.
    """
    plain = {key for key in wanted if isinstance(key, int)}
    paths: list[_Tail] = []
    for key in wanted:
        if isinstance(key, tuple):
            if not key:
                raise ValueError("a path needs at least one step")
            paths.append((key, key))
        elif not isinstance(key, int):
            paths.append(((key,), key))
    if wanted:
        plain.add(CHARACTER_SET)
    if any(is_ambiguous(tag) for tag in plain) or _has_ambiguous(paths):
        plain.add(PIXEL_REPRESENTATION)
    return _level(plain, paths)


@lru_cache(maxsize=256)
def inner_level(tails: frozenset[_Tail]) -> Level:
    """What is wanted of the items of a sequence, with what is needed to read it."""
    kept = {CHARACTER_SET}
    if _has_ambiguous(tails):
        kept.add(PIXEL_REPRESENTATION)
    return _level((), tails, kept)


def merged(wants: Collection[Want]) -> Level | None:
    """What is wanted of the items of a sequence that several ask for; None when nothing is."""
    inner = [want for want in wants if want.inner is not None]
    if len(inner) <= 1:
        return inner[0].inner if inner else None
    return inner_level(frozenset().union(*(want.tails for want in inner)))


def _has_ambiguous(tails: Iterable[_Tail]) -> bool:
    return any(isinstance(path[-1], int) and is_ambiguous(path[-1]) for path, _ in tails)


def _level(plain: Collection[int], tails: Collection[_Tail], kept: Collection[int] = ()) -> Level:
    steps: dict[Step, list[_Tail]] = {tag: [] for tag in kept}
    for path, key in tails:
        steps.setdefault(path[0], []).append((path[1:], key))
    wants: dict[int, tuple[Want, ...]] = {}
    privates: dict[int, dict[str, dict[int, Want]]] = {}
    last = max(plain, default=0)
    for step, rest in steps.items():
        if isinstance(step, int):
            wants[step] = (_want(rest, dictionary_vr(step), kept=step in kept),)
            last = max(last, step)
        else:
            vr = private_vr(step.group, step.creator, step.element)
            creators = privates.setdefault(step.group, {})
            creators.setdefault(step.creator, {})[step.element] = _want(rest, vr)
            last = max(last, step.group << 16 | 0xFF00 | step.element)
    for group in privates:
        for tag in (group << 16 | block for block in _BLOCKS):
            wants[tag] = wants.get(tag, ()) + _CREATOR
    keys = {little(tag): tag for tag in plain} | {little(tag): SPECIAL for tag in wants}
    return Level({tag: dictionary_vr(tag) for tag in plain}, wants, keys, privates, last)


def _want(rest: Collection[_Tail], vr: str, *, kept: bool = False) -> Want:
    tails = frozenset((path, key) for path, key in rest if path)
    return Want(
        vr,
        keys=tuple(key for path, key in rest if not path),
        inner=inner_level(tails) if tails else None,
        tails=tails,
        kept=kept,
    )


class Scope:
    """A data set or an item that is being walked over: what is wanted there.

    ``keys`` and ``wants`` are those of the level, and grow by the private elements whose
    creators have passed.  ``kept`` has the values of what bears on others.
    """

    __slots__ = ("_seen", "kept", "keys", "level", "outer", "wants")

    def __init__(self, level: Level, outer: "Scope | None" = None) -> None:
        self.level = level
        self.keys = level.keys
        self.wants = level.wants
        self.outer = outer
        self.kept: dict[int, bytes] | None = None
        self._seen: set[int] | None = None

    def first(self, tag: int) -> bool:
        """True for the first element of this tag: of several only that one counts."""
        if self._seen is None:
            self._seen = set()
        if tag in self._seen:
            return False
        self._seen.add(tag)
        return True

    def keep(self, tag: int, value: bytes) -> None:
        """Keep what bears on how others are read."""
        if self.kept is None:
            self.kept = {}
        self.kept[tag] = value

    def nearest(self, tag: int) -> bytes | None:
        """The value of what was kept here, or in the item around; None when only the top has it.

        PS3.3 C.12.1.1.2: a character set counts for an item and all that is in it.
        """
        scope: Scope | None = self
        while scope is not None:
            if scope.kept is not None and tag in scope.kept:
                return scope.kept[tag]
            scope = scope.outer
        return None

    def reserve(self, tag: int, value: bytes) -> bool:
        """A private creator has passed; True when elements of its block are wanted."""
        # The default repertoire only (PS3.5 §7.8.1); Latin-1 keeps what breaks that visible.
        creator = value.decode("latin_1").strip(" \0")
        elements = self.level.privates[tag >> 16].get(creator)
        if elements is None:
            return False
        if self.keys is self.level.keys:
            self.keys, self.wants = dict(self.keys), dict(self.wants)
        base = tag & 0xFFFF0000 | (tag & 0xFF) << 8
        for element, want in elements.items():
            place = base | element & 0xFF
            self.keys[little(place)] = SPECIAL
            self.wants[place] = (*self.wants.get(place, ()), want)
        return True
