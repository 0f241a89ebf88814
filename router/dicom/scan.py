"""The incremental scanner: picks a few top-level attributes out of a data set as it arrives.

Owns the walk over elements in pieces of any size, in every encoding, and what is tolerated on
the way.  Must not know where the bytes come from or what the attributes are for.

PS3.5 §7 (data elements, sequences), annex A (transfer syntaxes); CP-246 (UN of undefined
length is an implicit VR little endian sequence).

What is tolerated: elements out of order, of odd length, with a VR that is wrong or unknown
(the length counts as it is encoded, in the form that the VR asks for; a VR that is not of this
standard has the long form when its two reserved bytes are zero, else the short one); implicit
elements in explicit data (bytes where the VR should be that are not two capitals); an item
whose delimiter is missing before that of its sequence; stray delimiters.  What is not: a
Part 10 file in place of its data set, the wrong byte order, explicit data where implicit was
agreed, lengths that run past the end, and more than 64 sequences inside each other.

The scan ends at the first top-level tag above the highest wanted one, or when every wanted one
has been found: elements out of order before that are seen, later ones are not.  Of a tag that
comes twice the first counts.
"""

import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from router.dicom import elements
from router.dicom.charset import DEFAULT, character_set
from router.dicom.elements import HEADER, LONG_HEADER, UNDEFINED, BadHeader, Encoding, show
from router.dicom.uids import transfer_syntax
from router.dicom.values import dictionary_vr, is_ambiguous, text_values

_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_DELIMITERS = 0xFFFE
_PREAMBLE = 132
_DEPTH = 64
# Skipping a value is arithmetic; a longer one than this is not counted as looked at.
_FREE = 0x10000
_INFLATE = 64 * 1024

_EXPLICIT_HEADER = struct.Struct("<IHH")
_IMPLICIT_HEADER = struct.Struct("<II")
_SHORT = {int.from_bytes(vr.encode(), "little"): vr for vr in elements.SHORT_VRS}
_NO_KEYS: dict[int, int] = {}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is wanted: tags with the dictionary's VR, and the same by how the four bytes of a
    little endian tag read as one number (element above group)."""

    vrs: dict[int, str]
    keys: dict[int, int]
    last: int


@lru_cache(maxsize=64)
def _plan(wanted: frozenset[int]) -> _Plan:
    tags = set(wanted)
    if tags:
        tags.add(_CHARACTER_SET)
    if any(is_ambiguous(tag) for tag in tags):
        tags.add(_PIXEL_REPRESENTATION)
    keys = {(tag & 0xFFFF) << 16 | tag >> 16: tag for tag in tags}
    return _Plan({tag: dictionary_vr(tag) for tag in tags}, keys, max(tags, default=0))


class Scanner:
    """Finds top-level attributes in a data set of the given transfer syntax.

    Feed it pieces in order until it is ``done``, or call `finish` when the data set has ended.
    ``found`` maps each tag that was met to its VR as encoded (the dictionary's where the
    encoding has none) and the bytes of its value; Specific Character Set is always among the
    wanted.  A sequence is found with an empty value when its length is undefined.  Tags whose
    value exceeds ``value_limit`` bytes are in ``too_large`` and not in ``found``.  ``error`` is
    "" or says what is wrong with the data set, with tag and byte position; after an error the
    scanner is done, and what was found before it stands.

    Memory is bounded by ``value_limit`` for each wanted tag; headers and values of up to
    64 KiB count toward ``byte_limit``, as does everything that is inflated.
    """

    __slots__ = (
        "_big_endian",
        "_budget",
        "_carry",
        "_encoding",
        "_fresh",
        "_in_sequence",
        "_inflate",
        "_inflated",
        "_limits",
        "_offset",
        "_pending",
        "_plan",
        "_skip",
        "_stack",
        "_started",
        "_syntax",
        "_value",
        "done",
        "error",
        "found",
        "too_large",
    )

    def __init__(
        self,
        transfer_syntax_uid: str,
        wanted: Collection[int],
        *,
        value_limit: int = 64 * 1024,
        byte_limit: int = 8 * 1024 * 1024,
    ) -> None:
        syntax = transfer_syntax(transfer_syntax_uid)
        self.found: dict[int, tuple[str, bytes]] = {}
        self.too_large: set[int] = set()
        self.error = ""
        self._plan = _plan(frozenset(wanted))
        self.done = not self._plan.keys
        self._syntax = syntax
        self._big_endian = syntax.is_big_endian
        self._encoding = elements.EXPLICIT_LITTLE
        if syntax.is_big_endian:
            self._encoding = elements.EXPLICIT_BIG
        elif not syntax.is_explicit:
            self._encoding = elements.IMPLICIT_LITTLE
        self._limits = (value_limit, byte_limit)
        self._budget = byte_limit
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if syntax.is_deflated else None
        self._inflated = 0
        self._offset = 0  # in the data set, of the buffer under way
        self._carry = b""  # the beginning of a header that its piece did not hold whole
        self._skip = 0  # bytes of a value that are still to pass
        self._value: tuple[int, str, bytearray, int] | None = None  # wanted, not yet whole
        self._pending = (0, 0, 0)  # tag, position and length of what is skipped or collected
        self._started = False
        # Sequences and items of undefined length around the place: (is a sequence, tag,
        # position, encoding outside).
        self._stack: list[tuple[bool, int, int, Encoding]] = []
        self._in_sequence = False
        self._fresh = False  # at the first element of an item inside UN

    def feed(self, piece: memoryview | bytes) -> bool:
        """Take the next piece; True when no more are needed.  The view is not kept."""
        if self.done:
            return True
        if self._inflate is None:
            self._scan(piece)
        else:
            self._scan_deflated(self._inflate, piece)
        return self.done

    def finish(self) -> None:
        """The data set has ended: whatever is incomplete becomes the ``error``."""
        if not self.done:
            self._drain()
        if not self.done:
            self._conclude()
        self.done = True

    def text(self, tag: int) -> tuple[str, ...] | None:
        """Values of a found element as text (see `values.text_values`); None when not found."""
        return None if tag not in self.found else self._texts((tag,))[tag]

    def attributes(self) -> dict[int, tuple[str, ...]]:
        """Every found tag with its values as text; ``()`` for empty and for binary values."""
        return self._texts(self.found)

    def _texts(self, tags: Iterable[int]) -> dict[int, tuple[str, ...]]:
        found = self.found
        characters = DEFAULT
        if (terms := found.get(_CHARACTER_SET)) is not None:
            characters = character_set(terms[1])
        signed = found.get(_PIXEL_REPRESENTATION, ("", b""))[1].strip(b"\0") == b"\1"
        big = self._big_endian
        return {
            tag: text_values(tag, *found[tag], characters, big_endian=big, signed=signed)
            for tag in tags
        }

    def _drain(self) -> None:
        """Scan what was held back for more to come."""
        if self._inflate is not None:
            self._scan_deflated(self._inflate, b"")
            if not self._inflate.eof and not self.error:
                self._fail(f"the deflated data set ends early, after {self._offset} bytes inflated")
        if self._carry and not self._started and not self.error:
            self._offset -= len(self._carry)
            used = self._run(self._carry, final=True)
            self._offset += len(self._carry)
            self._carry = self._carry[used:]

    def _conclude(self) -> None:
        end = self._offset
        if end == 0:
            self._fail("the data set is empty")
        elif self._skip or self._value:
            tag, at, length = self._pending
            self._fail(f"element {show(tag)} at byte {at} claims {length} bytes of {end}")
        elif self._carry:
            at = end - len(self._carry)
            self._fail(f"the data set ends at byte {end}, inside the header at byte {at}")
        elif self._stack:
            _, tag, at, _ = self._stack[-1]
            self._fail(f"{show(tag)} of undefined length at byte {at} has no end")

    def _fail(self, text: str) -> None:
        self.error = text
        self.done = True

    def _scan_deflated(self, inflate: "zlib._Decompress", piece: memoryview | bytes) -> None:
        # Sliced, so that what zlib leaves over and hands back is a copy of a little only.
        for at in range(0, max(len(piece), 1), _INFLATE):
            pending: bytes | memoryview = piece[at : at + _INFLATE]
            full = True
            while (full or pending) and not self.done and not inflate.eof:
                room = min(_INFLATE, self._limits[1] + 1 - self._inflated)  # else cuts would tell
                try:
                    out = inflate.decompress(pending, room)
                except zlib.error as error:
                    self._fail(f"the deflated data set is damaged: {error}")
                    return
                pending = inflate.unconsumed_tail
                full = len(out) == room
                self._inflated += len(out)
                self._scan(out)
                if self._inflated > self._limits[1] and not self.done:
                    self._give_up()

    def _give_up(self) -> None:
        self._fail(
            f"after {self._limits[1]} bytes the scan has not come to {show(self._plan.last)}, "
            "the last attribute that is wanted"
        )

    def _scan(self, piece: memoryview | bytes) -> None:
        end = len(piece)
        at = 0
        base = self._offset
        while at < end and not self.done:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
            elif self._value is not None:
                at = self._collect(piece, at, end)
            elif self._carry:
                # A header across pieces: complete it in a small buffer and go on from there.
                head = len(self._carry)
                need = LONG_HEADER if self._started else _PREAMBLE
                joined = self._carry + bytes(piece[at : at + max(need - head, 1)])
                self._offset = base + at - head
                used = self._run(joined)
                if used < head:
                    self._carry = joined[used:]
                    at += len(joined) - head
                else:
                    self._carry = b""
                    at += used - head
            else:
                self._offset = base + at
                rest = piece[at:] if at else piece
                used = self._run(rest)
                self._carry = b"" if self.done else bytes(rest[used:])
                at = end
        self._offset = base + end

    def _collect(self, piece: memoryview | bytes, at: int, end: int) -> int:
        assert self._value is not None
        tag, vr, collected, length = self._value
        stop = min(end, at + length - len(collected))
        collected += piece[at:stop]
        if len(collected) == length:
            self._value = None
            self._take(tag, vr, bytes(collected))
        return stop

    def _take(self, tag: int, vr: str, value: bytes) -> None:
        self.found.setdefault(tag, (vr, value))
        if len(self.found) == len(self._plan.keys):
            self.done = True

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
            if not self._in_sequence and not self._fresh and self._encoding.order == "<":
                start = at
                last = min(end - HEADER, at + self._budget)
                if self._encoding.explicit:
                    at = self._pass_explicit(buffer, at, end, last)
                else:
                    at = self._pass_implicit(buffer, at, end, last)
                self._budget -= at - start
                if at > end:
                    self._skip = at - end
                    return end
                if end - at < HEADER or self.done or self._budget < 0:
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
        group, _ = self._encoding.tag.unpack_from(buffer, 0)
        if group != 8:
            # Not what images begin with: a whole file perhaps, whose preamble can be anything.
            if end < _PREAMBLE and not final:
                return False
            if buffer[128:132] == b"DICM":
                self._fail("a whole Part 10 file, from its preamble on, in place of a data set")
            elif group == 2:
                self._fail("the data set begins with group 0002, file meta information")
            elif group == 0:
                self._fail("the data set begins with group 0000, a command set or a preamble")
            elif group in (0x0200, 0x0400, 0x0800):
                self._fail(f"the byte order is not that of {self._syntax.name}")
        if not self._encoding.explicit and elements.looks_explicit(buffer, 0):
            self._fail(f"the data set has explicit VRs, which {self._syntax.name} has not")
        self._started = True
        return not self.done

    def _pass_explicit(self, buffer: memoryview | bytes, at: int, end: int, last: int) -> int:
        """The short way over short-form elements; stops where it cannot judge.

        Returns a place past ``end`` when the last value goes on there.
        """
        unpack = _EXPLICIT_HEADER.unpack_from
        short = _SHORT
        nested = bool(self._stack)
        keys = _NO_KEYS if nested else self._plan.keys
        stop = _DELIMITERS if nested else self._plan.last >> 16
        limit = self._limits[0]
        key = length = 0
        while at <= last:
            key, vr, length = unpack(buffer, at)
            if vr not in short:
                return at
            if key in keys:
                after = at + HEADER + length
                if after > end or length > limit:
                    return at
                self._take(keys[key], short[vr], bytes(buffer[at + HEADER : after]))
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
        nested = bool(self._stack)
        keys = _NO_KEYS if nested else self._plan.keys
        stop = _DELIMITERS if nested else self._plan.last >> 16
        limit = self._limits[0]
        key = length = 0
        while at <= last:
            key, length = unpack(buffer, at)
            if length >= _FREE:
                return at
            if key in keys:
                after = at + HEADER + length
                if after > end or length > limit:
                    return at
                tag = keys[key]
                self._take(tag, self._plan.vrs[tag], bytes(buffer[at + HEADER : after]))
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
            self._fail(f"{show(tag)} at byte {position}, where an item of a sequence should be")
            return at
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
        wanted = not self._stack and tag in self._plan.vrs
        if length == UNDEFINED:
            if wanted:
                self._take(tag, vr or self._plan.vrs[tag], b"")
            return self._open_sequence(tag, vr, at + size, position)
        if length < _FREE:
            self._budget -= length
        self._pending = (tag, position, length)
        if wanted:
            return self._wanted(tag, vr or self._plan.vrs[tag], length, buffer, at + size, end)
        return at + size + length

    def _wanted(
        self, tag: int, vr: str, length: int, buffer: memoryview | bytes, at: int, end: int
    ) -> int:
        if length > self._limits[0]:
            self.too_large.add(tag)
            return at + length
        if at + length <= end:
            self._take(tag, vr, bytes(buffer[at : at + length]))
            return at + length
        self._value = (tag, vr, bytearray(buffer[at:end]), length)
        return end

    def _open_sequence(self, tag: int, vr: str, after: int, position: int) -> int:
        if sum(frame[0] for frame in self._stack) >= _DEPTH:
            self._fail(f"{show(tag)} at byte {position} is more than {_DEPTH} sequences deep")
            return after
        self._stack.append((True, tag, position, self._encoding))
        self._in_sequence = True
        if vr == "UN":
            self._encoding = elements.IMPLICIT_LITTLE
        return after

    def _delimit(self, element: int, length: int, at: int, position: int) -> int:
        """Items and delimiters, which have no VR in any encoding (PS3.5 §7.5)."""
        self._budget -= HEADER
        after = at + HEADER
        if element == _ITEM and self._in_sequence:
            if length != UNDEFINED:
                self._pending = (_DELIMITERS << 16 | _ITEM, position, length)
                if length < _FREE:
                    self._budget -= length
                return after + length
            self._stack.append((False, _DELIMITERS << 16 | _ITEM, position, self._encoding))
            self._in_sequence = False
            self._fresh = not self._encoding.explicit and self._syntax.is_explicit
        elif element == _SEQUENCE_END:
            # With a delimiter of the item missing, this one ends both.
            while self._stack and not self._close():
                continue
        elif element == _ITEM_END:
            if self._stack and not self._in_sequence:
                self._close()
        else:
            tag = _DELIMITERS << 16 | element
            self._fail(f"{show(tag)} at byte {position}, outside a sequence")
        return after

    def _close(self) -> bool:
        """Leave the innermost item or sequence; True when it was a sequence."""
        sequence, _, _, self._encoding = self._stack.pop()
        self._in_sequence = bool(self._stack) and self._stack[-1][0]
        self._fresh = False
        return sequence
