"""The incremental scanner: picks wanted attributes out of a data set as it arrives.

Owns taking a data set in pieces of any size, deflated ones too, and what it held in the end.
Must not know where the bytes come from or what the attributes are for; the walk over elements
is `walk`'s.

PS3.5 annex A (transfer syntaxes).

What is tolerated: elements out of order, of odd length, with a VR that is wrong or unknown
(the length counts as it is encoded, in the form that the VR asks for; a VR that is not of this
standard has the long form when its two reserved bytes are zero, else the short one); implicit
elements in explicit data (bytes where the VR should be that are not two capitals); text where
the dictionary has a sequence; an item whose delimiter is missing before that of its sequence;
stray delimiters.  What is not: a Part 10 file in place of its data set, the wrong byte order,
explicit data where implicit was agreed, lengths that run past the end of the data set or of
the item or sequence that is looked into, and more than 64 sequences inside each other.

The scan ends at the first top-level tag above the highest wanted one, or when every wanted one
has been found: elements out of order before that are seen, later ones are not.  Of a tag that
comes twice the first counts, at the top and in each item.  A private element is found behind
its creator, in every block that has this creator.
"""

import zlib
from collections.abc import Collection, Iterable
from typing import Any

from router.dicom.charset import DEFAULT, CharacterSet, character_set
from router.dicom.elements import LONG_HEADER, PREAMBLE, show
from router.dicom.gather import is_signed
from router.dicom.uids import transfer_syntax
from router.dicom.values import MANY_PARTS, text_values
from router.dicom.walk import Walk
from router.dicom.wanted import CHARACTER_SET, PIXEL_REPRESENTATION, Key, top_level

_INFLATE = 64 * 1024


class Scanner(Walk):
    """Finds attributes in a data set of the given transfer syntax.

    ``wanted`` names them: a tag; a private element by anything with group, creator and element
    (see `wanted.PrivateStep`); or a tuple of such steps through sequences.  Of a sequence on the
    way all items count, whether its length is defined or not; in UN it is found where the
    dictionary knows it for one, and where it looks like one if nobody knows.

    Feed it pieces in order until it is ``done``, or call `finish` when the data set has ended.
    ``found`` maps each tag of the top level that was met to its VR as encoded (the dictionary's
    where the encoding has none) and the bytes of its value; Specific Character Set is always
    among the wanted.  A sequence is found with an empty value when its length is undefined or
    it was looked into.  ``gathered`` has the values of private elements and of paths.  Keys whose
    values exceed ``value_limit`` bytes, come in more than some thousand places or are more than
    ``parts_limit`` different ones are in ``too_large`` and not in the others.  ``error`` is
    "" or says what is wrong with the data set, with tag and byte position; after an error the
    scanner is done, and what was found before it stands.

    Memory is bounded by ``value_limit`` for each wanted key; headers and values of up to
    64 KiB count toward ``byte_limit``, as does everything that is inflated.  Raises ValueError
    for a path without steps.
    """

    __slots__ = ("_carry", "_inflate", "_inflated")

    def __init__(
        self,
        transfer_syntax_uid: str,
        wanted: Collection[Key],
        *,
        value_limit: int = 64 * 1024,
        byte_limit: int = 8 * 1024 * 1024,
        parts_limit: int = MANY_PARTS,
    ) -> None:
        syntax = transfer_syntax(transfer_syntax_uid)
        super().__init__(
            syntax, top_level(frozenset(wanted)), (value_limit, byte_limit, parts_limit)
        )
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if syntax.is_deflated else None
        self._inflated = 0
        self._carry = b""  # the beginning of a header that its piece did not hold whole

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

    def text(self, key: Key) -> tuple[str, ...] | None:
        """Values of what was found as text (see `attributes`); None when it was not found."""
        if isinstance(key, int) and key in self.found:
            return self._texts((key,))[key]
        if (values := self.gathered.get(key)) is not None:
            return values.texts(self._characters, signed=self._signed)
        return () if key in self.too_large else None

    def attributes(self) -> dict[Any, tuple[str, ...]]:
        """Every wanted key that the data set has, with its values as text (`text_values`).

        Those of all places one after the other; ``()`` for empty and binary values, sequences,
        and what is too large.  The keys are those that were given, and Specific Character Set.
        """
        texts: dict[Any, tuple[str, ...]] = self._texts(self.found)
        for key in self.too_large:
            texts.setdefault(key, ())
        for key, values in self.gathered.items():
            texts[key] = values.texts(self._characters, signed=self._signed)
        return texts

    @property
    def unread(self) -> frozenset[Any]:
        """The keys of ``too_large``, as they were given."""
        return frozenset(self.too_large)

    @property
    def _characters(self) -> CharacterSet:
        terms = self.found.get(CHARACTER_SET)
        return DEFAULT if terms is None else character_set(terms[1])

    @property
    def _signed(self) -> bool:
        return is_signed(self.found.get(PIXEL_REPRESENTATION, ("", b""))[1])

    def _texts(self, tags: Iterable[int]) -> dict[int, tuple[str, ...]]:
        found = self.found
        characters = self._characters
        signed = PIXEL_REPRESENTATION in found and self._signed
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
        else:
            self._conclude_stack(end)

    def _conclude_stack(self, end: int) -> None:
        """The data set has ended: nothing may be open that does not end with it."""
        if self._bound == end:
            self._leave(end)
        if not self._stack or self.done:
            return
        _, tag, at, stop, *_ = self._stack[-1]
        if stop:
            text = f"goes on to byte {stop}, and the data set has {end}"
            self._fail(f"{show(tag)} at byte {at} {text}")
        else:
            self._endless(tag, at)

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
                need = LONG_HEADER if self._started else PREAMBLE
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
        tag, vr, collected, length, wants = self._value
        stop = min(end, at + length - len(collected))
        collected += piece[at:stop]
        if len(collected) == length:
            self._value = None
            self._deliver(tag, vr, bytes(collected), wants)
        return stop
