"""What is said of the files in one folder of the archive: a line of JSON for each.

Owns what a line holds, and that lines are only ever added, at a cost that does not depend on how
many there are.  A kill or a power cut may leave the last one torn: it was not told of as written,
and the next that adds any drops it.  Must not know which folder it is.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.spool import system
from router.spool.index_types import InstanceRow

MANIFEST = "manifest.jsonl"
_LAST_MOMENT = 253402300799.0  # 9999-12-31
_BACK = 64 << 10
_TAIL = 1 << 20
"""Bytes at the end in which a line is looked for that may be there already."""
_BEGINS = b'{"file": "'


@contextlib.contextmanager
def open_manifest(directory: Path) -> Iterator[int]:
    """The descriptor for `add_lines`; its entry in the directory may not be durable yet.  Raises
    OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    fd = os.open(directory / MANIFEST, flags, 0o600)
    try:
        yield fd
    finally:
        system.close(fd)


def add_lines(fd: int, lines: Sequence[str], *, again: bool = False) -> None:
    """Add them; they are durable when this returns.

    With ``again`` some may have been added before, by who did not come to say so: those that
    are among the last ones are not added twice.  Any other that is there twice does no harm.
    Raises OSError; then none of them counts as added.
    """
    end = os.fstat(fd).st_size
    if again:
        start = max(0, end - _TAIL)
        known = set(_read(fd, start, end - start).split(b"\n"))
        lines = [line for line in lines if line.encode() not in known]
    start, separator = _whole_until(fd, end)
    if start < end:
        os.ftruncate(fd, start)
    text = separator + "".join(f"{line}\n" for line in lines).encode()
    try:
        system.write_all(fd, [text], start)
        system.sync_data(fd)
    except OSError:
        # Else they would be there once more with every try.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, start)
        raise


def _whole_until(fd: int, end: int) -> tuple[int, bytes]:
    """Where what is whole ends, and what has to come before the next line."""
    if not end or _read(fd, end - 1, 1) == b"\n":
        return end, b""
    last = b""
    start = end
    while start:
        piece = _read(fd, max(0, start - _BACK), min(start, _BACK))
        start -= len(piece)
        cut = piece.rfind(b"\n") + 1
        last = piece[cut:] + last
        if cut:
            start += cut
            break
    return (start, b"") if _is_torn(last) else (end, b"\n")


def _is_torn(last: bytes) -> bool:
    """Whether what has no end of line is the first part of one of ours, or, as file systems leave
    it after a power cut, zeros.  A whole one and what somebody else wrote there is not."""
    if b"\0" in last:
        return True
    if not (last.startswith(_BEGINS) or _BEGINS.startswith(last)):
        return False
    try:
        json.loads(last)
    except ValueError:
        return True
    return False


def _read(fd: int, offset: int, length: int) -> bytes:
    """So many bytes.  Raises OSError."""
    pieces: list[bytes] = []
    while length:
        piece = os.pread(fd, length, offset)
        if not piece:
            raise OSError(errno.EIO, "the manifest became shorter while it was read")
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def describe(name: str, row: InstanceRow) -> dict[str, Any]:
    """A line of the manifest."""
    ref, meta = row.ref, row.meta
    return {
        "file": name,
        "instance": ref.id,
        "received_at": _iso(meta.received_at),
        "study_instance_uid": meta.study_instance_uid,
        "series_instance_uid": meta.series_instance_uid,
        "sop_instance_uid": meta.sop_instance_uid,
        "sop_class_uid": meta.sop_class_uid,
        "transfer_syntax_uid": meta.transfer_syntax_uid,
        "modality": meta.modality,
        "bytes": ref.length,
        "crc32": f"{ref.crc:08x}",
        "calling_ae": meta.calling_ae,
        "called_ae": meta.called_ae,
        "source": meta.source,
        "remote": meta.remote,
        "association": meta.association,
        "rules_version": meta.rules_version,
        "tags": list(meta.tags),
        "deliveries": [
            {
                "destination": delivery.destination,
                "state": delivery.state.name.lower(),
                "at": _iso(delivery.updated_at),
                "reason": delivery.reason,
            }
            for delivery in row.deliveries
        ],
    }


def _iso(seconds: float) -> str:
    return moment(seconds).isoformat(timespec="milliseconds")


def moment(seconds: float) -> datetime:
    """Of a clock that was far off too."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_MOMENT), UTC)
