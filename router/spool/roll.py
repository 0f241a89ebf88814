"""Which segment files there are, and in which life each was last seen, noted beside them.

Owns the file ``segments.roll`` of a spool directory.  Segments are used again, so that none is
missed by its number or its generation: where the index does not name what lay in it, because it is
older or lost, nobody else would miss a file that is gone, or know one that was put back from an
earlier time.  Must not know what a segment holds.  Blocking; thread-safe.

The file is a row of entries of 32 bytes, written in place, so that none of them needs space:

====  ====  ====================================================================
at    size  field (little endian)
====  ====  ====================================================================
0     8     number of the file; 0 = a free entry
8     8     generation of the latest life that was begun in it, 0 if none was
16    4     CRC-32 of bytes 0-15, of a free entry 0
20    12    zeros
====  ====  ====================================================================

The first one has ``DCMRROLL`` and the version in place of number and generation.

No entry says more than the file of its segment, as long as that is there: an entry is made when the
file is, raised when the header of the new life is durable, and removed before the file.
"""

import os
import struct
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from router.spool import system
from router.spool.errors import SpoolError
from router.spool.layout import BLOCK, crc32

_ENTRY = struct.Struct("<QQI12x")
_HEAD = struct.Struct("<8sQI12x")
_MAGIC = b"DCMRROLL"
_VERSION = 1
_FREE = bytes(_ENTRY.size)


class Roll:
    """Of one spool directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = False
        """The file was there and could be read."""
        self.whole = False
        """And nothing in it is damaged: what it does not name was never noted, or was removed."""
        self._lock = threading.Lock()
        self._generations: dict[int, int] = {}
        self._places: dict[int, int] = {}
        self._free: list[int] = []
        self._size = 0
        """Of the file, 0 without one that can be written to in place."""
        self._doubtful = False
        """What the file says, if it is there, nobody knows."""

    def load(self) -> list[str]:
        """Read the file; what is wrong with it, a line each.

        Raises SpoolError when the disk does not give it: it may be sound, and to go on without it
        is to write it anew, without what is missing.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SpoolError(
                f"reading {self.path}: {error.strerror or error}; if that does not pass, move it "
                f"away and start again: {_UNKNOWN} then"
            ) from error
        if not data.startswith(_head()):
            self._doubtful = True
            return [f"{self.path.name}: no sound head; {_UNKNOWN}"]
        notes = []
        self.found, self.whole = True, len(data) % BLOCK == 0
        self._size = len(data) // _ENTRY.size * _ENTRY.size
        for at in range(_ENTRY.size, len(data) - _ENTRY.size + 1, _ENTRY.size):
            raw = data[at : at + _ENTRY.size]
            if raw == _FREE:
                self._free.append(at)
                continue
            number, generation, crc = _ENTRY.unpack(raw)
            if number == 0 or crc != crc32(raw[:16]) or number in self._places:
                notes.append(f"{self.path.name}: a damaged entry at byte {at}; {_UNKNOWN}")
                self._free.append(at)
                self.whole = False
                continue
            self._generations[number], self._places[number] = generation, at
        return notes

    @property
    def generations(self) -> Mapping[int, int]:
        """By the number of a file, the latest generation that was begun in it, 0 if none was."""
        with self._lock:
            return dict(self._generations)

    def begin(self, generations: Mapping[int, int]) -> None:
        """Go on with these, durably.  Raises SpoolError; what is noted later is noted all the
        same."""
        with self._lock:
            if self.found and generations == self._generations:
                return
            old, self._generations = self._generations, dict(generations)
            try:
                self._write()
            except SpoolError:
                if not self._size:
                    raise
                # On a full disk there is room for it where it is.
                gone = [(self._places.pop(n), _FREE) for n in old.keys() - generations.keys()]
                pieces = [self._piece(n, g) for n, g in generations.items() if old.get(n) != g]
                self._put([*gone, *pieces])
                self._free.extend(place for place, _ in gone)

    def note(self, number: int, generation: int) -> None:
        """Return when a file is durably noted with the life that was begun in it, 0 for none.
        Raises SpoolError."""
        with self._lock:
            self._generations[number] = generation
            if not self._size:
                self._write()
                return
            try:
                self._put([self._piece(number, generation)])
            except SpoolError:  # of one bad block we would never get away
                self._write()

    def _piece(self, number: int, generation: int) -> tuple[int, bytes]:
        """What is to be written where."""
        place = self._places.get(number)
        written = [_entry(number, generation)]
        if place is None and not self._free:
            place, end = self._size, self._size // BLOCK * BLOCK + BLOCK
            written.append(bytes(end - place - _ENTRY.size))
            self._free.extend(range(end - _ENTRY.size, place, -_ENTRY.size))
            self._size = end
        elif place is None:
            place = self._free.pop()
        self._places[number] = place
        return place, b"".join(written)

    def remove(self, numbers: Iterable[int]) -> None:
        """Return when these are durably no longer noted: before their files are removed.  Raises
        SpoolError."""
        with self._lock:
            gone = {n: g for n in numbers if (g := self._generations.get(n)) is not None}
            places = [self._places[n] for n in gone if n in self._places]
            if self._size and places:
                self._put([(place, _FREE) for place in places])
                self._free.extend(places)
                for number in gone:
                    self._places.pop(number, None)
            for number in gone:
                del self._generations[number]
            if self._doubtful and gone:
                try:
                    self._write()
                except SpoolError:  # it may name them still
                    self._generations |= gone
                    raise

    def _put(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        with system.translated(f"writing {self.path}"):
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                for at, data in pieces:
                    system.write_all(fd, [data], at)
                system.sync_data(fd)
            finally:
                system.close(fd)

    def _write(self) -> None:
        """All of it, anew: the file appears whole or stays as it was."""
        numbers = sorted(self._generations)
        data = _head() + b"".join(_entry(n, self._generations[n]) for n in numbers)
        end = len(data) // BLOCK * BLOCK + BLOCK
        new = system.write_aside(self.path, data.ljust(end, b"\0"))
        self._size, self._doubtful = 0, True
        system.put_in_place(new, self.path)
        self._doubtful = False
        self._places = {n: i * _ENTRY.size for i, n in enumerate(numbers, 1)}
        self._free = list(range(end - _ENTRY.size, len(data) - 1, -_ENTRY.size))
        self._size, self.found = end, True


_UNKNOWN = "a segment that is missing may not be told of"


def _head() -> bytes:
    head = _HEAD.pack(_MAGIC, _VERSION, 0)
    return _HEAD.pack(_MAGIC, _VERSION, crc32(head[:16]))


def _entry(number: int, generation: int) -> bytes:
    return _ENTRY.pack(number, generation, crc32(_ENTRY.pack(number, generation, 0)[:16]))
