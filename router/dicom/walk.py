"""The walk over the elements of a data set, in every encoding.

Owns the place in the data set, the sequences and items around it, and what is picked out on the
way.  Must not know how the bytes arrive (see `scan`) or what the values mean.

PS3.5 §7 (data elements, sequences, private elements), annex A (transfer syntaxes); CP-246 (UN
of undefined length is an implicit VR little endian sequence).

Sequences that nothing wanted leads through are passed: by their length, or by their delimiters
where they have none.  Of the others every element is looked at.
"""

import struct
from typing import TypeAlias

from router.dicom import elements
from router.dicom.elements import HEADER, UNDEFINED, BadHeader, Encoding, show
from router.dicom.gather import MANY, Gathered, Reading
from router.dicom.uids import TransferSyntax
from router.dicom.values import BINARY, parts_of
from router.dicom.wanted import (
    CHARACTER_SET,
    PIXEL_REPRESENTATION,
    SPECIAL,
    Key,
    Level,
    Scope,
    Want,
    merged,
)

_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_DELIMITERS = 0xFFFE
_ITEM_TAG = _DELIMITERS << 16 | _ITEM
_DEPTH = 64
# Skipping a value is arithmetic; a longer one than this is not counted as looked at.
_FREE = 0x10000
_FAR = 1 << 62  # the end of what has no length
_KEPT = 64  # bytes: only the first term of a character set counts

_EXPLICIT_HEADER = struct.Struct("<IHH")
_IMPLICIT_HEADER = struct.Struct("<II")
_SHORT = {int.from_bytes(vr.encode(), "little"): vr for vr in elements.SHORT_VRS}
_NO_KEYS: dict[int, int] = {}
_NO_WANTS: dict[int, tuple[Want, ...]] = {}


_Frame: TypeAlias = tuple[bool, int, int, int, Level | None, Encoding, int, Scope | None]
"""A sequence or an item around the place, and what counted outside of it: whether it is a
sequence, tag, position, end (0 where the length is undefined), what is wanted of the items of a
sequence; encoding, ``_bound`` and ``_scope`` outside."""


class Walk:
    """Goes over buffers that each begin at a header, and picks out what is wanted.

    See `scan.Scanner`, which feeds it, for the attributes without an underscore.
    """

    __slots__ = (
        "_big_endian",
        "_bound",
        "_budget",
        "_encoding",
        "_fresh",
        "_in_sequence",
        "_keys",
        "_limits",
        "_offset",
        "_pending",
        "_plan",
        "_scope",
        "_skip",
        "_stack",
        "_started",
        "_stop",
        "_syntax",
        "_unsure",
        "_value",
        "_wants",
        "_whole",
        "done",
        "error",
        "found",
        "gathered",
        "too_large",
    )

    def __init__(self, syntax: TransferSyntax, plan: Level, limits: tuple[int, int, int]) -> None:
        self.found: dict[int, tuple[str, bytes]] = {}
        self.gathered: dict[Key, Gathered] = {}
        self.too_large: set[Key] = set()
        self.error = ""
        self.done = not plan.keys
        self._plan = plan
        self._syntax = syntax
        self._big_endian = syntax.is_big_endian
        self._encoding = elements.EXPLICIT_LITTLE
        if syntax.is_big_endian:
            self._encoding = elements.EXPLICIT_BIG
        elif not syntax.is_explicit:
            self._encoding = elements.IMPLICIT_LITTLE
        self._limits = limits  # bytes of a value, bytes in all, parts of a value
        self._budget = limits[1]
        self._offset = 0  # in the data set, of the buffer under way
        self._skip = 0  # bytes of a value that are still to pass
        # Wanted, not yet whole: tag, VR, what there is of it, length, who but the plan wants it.
        self._value: tuple[int, str, bytearray, int, tuple[Want, ...]] | None = None
        self._pending = (0, 0, 0)  # tag, position and length of what is skipped or collected
        self._started = False
        self._stack: list[_Frame] = []
        self._in_sequence = False
        self._fresh = False  # at the first element of an item inside UN
        self._unsure = False  # at the beginning of what may be no sequence after all
        self._bound = _FAR  # where the innermost thing of a defined length ends
        # When so many are found nothing can come any more; never, where several can.
        self._whole = -1 if plan.wants else len(plan.plain)
        self._scope: Scope | None = Scope(plan)
        self._keys, self._wants = plan.keys, plan.wants
        self._stop = plan.last >> 16  # the group at which the short way ends

    def _use(self, scope: Scope | None) -> None:
        """Go on in this data set or item; in None nothing is wanted."""
        self._scope = scope
        if scope is None:
            self._keys, self._wants = _NO_KEYS, _NO_WANTS
        else:
            self._keys, self._wants = scope.keys, scope.wants
        top = scope is not None and scope.outer is None
        self._stop = self._plan.last >> 16 if top else _DELIMITERS

    def _fail(self, text: str) -> None:
        self.error = text
        self.done = True

    def _give_up(self) -> None:
        self._fail(
            f"after {self._limits[1]} bytes the scan has not come to {show(self._plan.last)}, "
            "the last attribute that is wanted"
        )

    def _run(self, buffer: memoryview | bytes, *, final: bool = False) -> int:
        """Walk over the buffer; returns how much of it is dealt with.

        What is left is the beginning of a header.  A value that goes on past the buffer is
        left in ``_skip`` or ``_value``.
        """
        end = len(buffer)
        if not self._started and not self._begin(buffer, end, final):
            return 0
        at = 0
        while end - at >= HEADER and not self.done:
            if self._budget < 0:
                self._give_up()
                break
            bound = end
            if self._bound != _FAR:
                bound = self._bound - self._offset
                if bound - at < HEADER:
                    self._leave(self._offset + at)
                    continue
                bound = min(bound, end)
            if not self._in_sequence and not self._fresh and self._encoding.order == "<":
                start = at
                last = min(bound - HEADER, at + self._budget)
                if self._encoding.explicit:
                    at = self._pass_explicit(buffer, at, bound, last)
                else:
                    at = self._pass_implicit(buffer, at, bound, last)
                self._budget -= at - start
                if at > bound:
                    if self._offset + at > self._bound:
                        self._burst()
                        break
                    self._skip = at - end
                    return end
                if bound - at < HEADER or self.done or self._budget < 0:
                    continue
            after = self._step(buffer, at, end)
            if after < 0:
                break
            if after > end:
                self._skip = after - end
                return end
            at = after
        return at

    def _begin(self, buffer: memoryview | bytes, end: int, final: bool) -> bool:
        """Look at the very first bytes; False when more are needed, or after an error."""
        if end < HEADER:
            return final
        name = self._syntax.name
        wrong = elements.wrong_start(self._encoding, name, buffer, final=final)
        if wrong is None:
            return False
        if wrong:
            self._fail(wrong)
        self._started = True
        return not self.done

    def _pass_explicit(self, buffer: memoryview | bytes, at: int, end: int, last: int) -> int:
        """The short way over short-form elements; stops where it cannot judge.

        Returns a place past ``end`` when the last value goes on there.
        """
        unpack = _EXPLICIT_HEADER.unpack_from
        short = _SHORT
        keys = self._keys
        stop = self._stop
        limit = self._limits[0]
        key = length = 0
        while at <= last:
            key, vr, length = unpack(buffer, at)
            if vr not in short:
                return at
            if key in keys:
                after = at + HEADER + length
                tag = keys[key]
                if after > end or length > limit or tag == SPECIAL:
                    return at
                self._take(tag, short[vr], bytes(buffer[at + HEADER : after]))
                at = after
                if self.done:
                    return at
            elif key & 0xFFFF < stop:
                at += HEADER + length
            else:
                return at
        return at if at <= end else self._overrun(key, length, at)

    def _pass_implicit(self, buffer: memoryview | bytes, at: int, end: int, last: int) -> int:
        """As `_pass_explicit`, over elements with a value of less than 64 KiB."""
        unpack = _IMPLICIT_HEADER.unpack_from
        keys = self._keys
        stop = self._stop
        limit = self._limits[0]
        key = length = 0
        while at <= last:
            key, length = unpack(buffer, at)
            if length >= _FREE:
                return at
            if key in keys:
                after = at + HEADER + length
                tag = keys[key]
                if after > end or length > limit or tag == SPECIAL:
                    return at
                self._take(tag, self._plan.plain[tag], bytes(buffer[at + HEADER : after]))
                at = after
                if self.done:
                    return at
            elif key & 0xFFFF < stop:
                at += HEADER + length
            else:
                return at
        return at if at <= end else self._overrun(key, length, at)

    def _overrun(self, key: int, length: int, after: int) -> int:
        tag = (key & 0xFFFF) << 16 | key >> 16
        self._pending = (tag, self._offset + after - HEADER - length, length)
        return after

    def _step(self, buffer: memoryview | bytes, at: int, end: int) -> int:
        """One element of any kind; returns where the next begins, -1 when its header is cut."""
        encoding = self._encoding
        group, element = encoding.tag.unpack_from(buffer, at)
        position = self._offset + at
        if group == _DELIMITERS:
            (length,) = encoding.length.unpack_from(buffer, at + 4)
            return self._delimit(element, length, at, position)
        tag = group << 16 | element
        if self._in_sequence:
            return self._no_item(tag, at, position)
        if self._fresh:
            self._fresh = False
            if elements.looks_explicit(buffer, at):
                encoding = self._encoding = elements.EXPLICIT_LITTLE
        if not self._stack and tag > self._plan.last:
            self.done = True
            return at
        try:
            header = elements.read_header(encoding, buffer, at, end)
        except BadHeader as error:
            self._fail(f"element {show(tag)} at byte {position} {error}")
            return at
        if header is None:
            return -1
        vr, length, size = header
        self._budget -= size
        after = at + size
        if length != UNDEFINED:
            self._pending = (tag, position, length)
            if position + size + length > self._bound:
                self._burst()
                return at
        plain = not self._stack and tag in self._plan.plain
        if plain or tag in self._wants:
            return self._wanted(tag, vr, length, buffer, after, end, position)
        if length == UNDEFINED:
            self._open_sequence(tag, vr, position, 0, None)
            return after
        if length < _FREE:
            self._budget -= length
        return after + length

    def _wanted(
        self,
        tag: int,
        vr: str,
        length: int,
        buffer: memoryview | bytes,
        at: int,
        end: int,
        position: int,
    ) -> int:
        """An element that something is wanted of, its value at ``at``."""
        scope, wants = self._scope, self._wants.get(tag, ())
        if wants and not (scope is not None and scope.first(tag)):
            wants = ()
        level = self._level(vr, wants, undefined=length == UNDEFINED) if wants else None
        if length == UNDEFINED or (
            level is not None and (length >= HEADER or (length and vr == "SQ"))
        ):
            self._deliver(tag, vr, b"", wants)
            stop = 0 if length == UNDEFINED else self._offset + at + length
            self._open_sequence(tag, vr, position, stop, level)
            return at
        if length < _FREE:
            self._budget -= length
        if length > self._limits[0]:
            if not self._stack and tag in self._plan.plain:
                self.too_large.add(tag)
            for key in (key for want in wants for key in want.keys):
                self._drop(key)
            return at + length
        if at + length <= end:
            self._deliver(tag, vr, bytes(buffer[at : at + length]), wants)
            return at + length
        self._value = (tag, vr, bytearray(buffer[at:end]), length, wants)
        return end

    def _level(self, vr: str, wants: tuple[Want, ...], *, undefined: bool = False) -> Level | None:
        """What is wanted of the items, if this can be a sequence."""
        level = merged(wants)
        if level is None or vr == "SQ":
            return level
        if vr not in ("", "UN"):
            return None
        return level if undefined or any(want.vr in ("SQ", "UN") for want in wants) else None

    def _deliver(self, tag: int, vr: str, value: bytes, wants: tuple[Want, ...]) -> None:
        """A whole value that is wanted; of what is looked into, an empty one."""
        if not self._stack and tag in self._plan.plain:
            self._take(tag, vr or self._plan.plain[tag], value)
        scope = self._scope
        if scope is None:
            return
        for want in wants:
            if want.kept:
                scope.keep(tag, value[:_KEPT])
            if want.creator and scope.reserve(tag, value):
                self._use(scope)
            for key in want.keys:
                self._gather(key, tag, want.vr if vr in ("", "UN") else vr, value, scope)

    def _take(self, tag: int, vr: str, value: bytes) -> None:
        # Nothing shorter can have so many.
        if len(value) >= self._limits[2] < parts_of(tag, vr, value):
            self.too_large.add(tag)
            return
        self.found.setdefault(tag, (vr, value))
        if len(self.found) == self._whole:
            self.done = True

    def _gather(self, key: Key, tag: int, vr: str, value: bytes, scope: Scope) -> None:
        if key in self.too_large:
            return
        values = self.gathered.setdefault(key, Gathered())
        if not value or vr in BINARY:
            return
        characters, sign = scope.nearest(CHARACTER_SET), scope.nearest(PIXEL_REPRESENTATION)
        values.add(Reading(tag, vr, self._encoding.order == ">", characters, sign), value)
        if values.size > self._limits[0] or values.weight > MANY or values.parts > self._limits[2]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self.gathered.pop(key, None)
        self.too_large.add(key)

    def _open_sequence(
        self, tag: int, vr: str, position: int, end: int, level: Level | None
    ) -> None:
        """Go into a sequence; ``end`` is 0 where its length is undefined."""
        stack = self._stack
        if len(stack) >= _DEPTH and sum(frame[0] for frame in stack) >= _DEPTH:
            self._fail(f"{show(tag)} at byte {position} is more than {_DEPTH} sequences deep")
            return
        stack.append((True, tag, position, end, level, self._encoding, self._bound, self._scope))
        self._in_sequence = True
        self._unsure = False
        if end:
            self._bound = end
            self._unsure = vr != "SQ"
        if vr == "UN":
            self._encoding = elements.IMPLICIT_LITTLE

    def _open_item(self, position: int, end: int) -> None:
        """Go into an item; ``end`` is 0 where its length is undefined."""
        level = self._stack[-1][4]
        scope = self._scope
        self._stack.append(
            (False, _ITEM_TAG, position, end, None, self._encoding, self._bound, scope)
        )
        if end:
            self._bound = end
        self._in_sequence = self._unsure = False
        self._fresh = not self._encoding.explicit and self._syntax.is_explicit
        if level is not None:
            self._use(Scope(level, scope))
        elif scope is not None:
            self._use(None)

    def _close(self) -> bool:
        """Leave the innermost item or sequence; True when it was a sequence."""
        sequence, _, _, _, _, self._encoding, self._bound, scope = self._stack.pop()
        if scope is not self._scope:
            self._use(scope)
        self._in_sequence = bool(self._stack) and self._stack[-1][0]
        self._fresh = self._unsure = False
        return sequence

    def _leave(self, position: int) -> None:
        """Close all whose length ends here; there is no room for a header before that."""
        if position < self._bound:
            self._fail(
                f"the {self._bounding()} that ends at byte {self._bound} does so inside the "
                f"header at byte {position}"
            )
        while self._bound == position and not self.done:
            is_sequence, tag, at, end, *_ = self._stack[-1]
            if is_sequence and not end:
                self._endless(tag, at)
            else:
                self._close()  # an item whose delimiter is missing, perhaps

    def _bounding(self) -> str:
        """What the innermost thing is that has a defined length."""
        is_sequence = next(frame[0] for frame in reversed(self._stack) if frame[3])
        return "sequence" if is_sequence else "item"

    def _burst(self) -> None:
        tag, at, length = self._pending
        self._fail(
            f"element {show(tag)} at byte {at} claims {length} bytes, past the end of its "
            f"{self._bounding()} at byte {self._bound}"
        )

    def _endless(self, tag: int, at: int) -> None:
        self._fail(f"{show(tag)} of undefined length at byte {at} has no end")

    def _no_item(self, tag: int, at: int, position: int) -> int:
        """Something else where an item should be, as of text in what should be a sequence."""
        if not self._unsure:
            self._fail(f"{show(tag)} at byte {position}, where an item of a sequence should be")
            return at
        _, tag, start, end, *_ = self._stack[-1]
        self._close()
        self._pending = (tag, start, end - position)
        return at + end - position

    def _delimit(self, element: int, length: int, at: int, position: int) -> int:
        """Items and delimiters, which have no VR in any encoding (PS3.5 §7.5)."""
        self._budget -= HEADER
        after = at + HEADER
        if element == _ITEM and self._in_sequence:
            end = 0
            if length != UNDEFINED:
                self._pending = (_ITEM_TAG, position, length)
                end = position + HEADER + length
                if end > self._bound:
                    self._burst()
                    return after
                if self._stack[-1][4] is None:
                    if length < _FREE:
                        self._budget -= length
                    return after + length
            self._open_item(position, end)
        elif element == _SEQUENCE_END:
            # With a delimiter of the item missing, this one ends both.
            while self._stack and not self._stack[-1][3] and not self._close():
                continue
        elif element == _ITEM_END:
            if self._stack and not self._in_sequence and not self._stack[-1][3]:
                self._close()
        else:
            tag = _DELIMITERS << 16 | element
            self._fail(f"{show(tag)} at byte {position}, outside a sequence")
        return after
