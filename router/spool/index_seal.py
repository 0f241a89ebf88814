"""What an index file was when it was closed, so that the next start knows whether it still is.

Owns the note of its time, length and CRC-32 beside it, which holds while nobody has the index open.
Must not know what is in the file.  The note is not synced: one that a power cut took, or left half
written, tells nothing, and the start looks through the whole index, as after any unclean end.  Nor
does it tell anything of a file that was written to since, such as a copy put back, or by a version
that knows no notes: what a disk loses by itself leaves the time as it was.
"""

from pathlib import Path

from router.spool import system
from router.spool.layout import crc32

_SEAL = "-sealed"
_PIECE = 1 << 20


def seal(path: Path) -> None:
    """Note what the file is, which is closed and all of it synced.  Raises OSError."""
    _seal_of(path).write_text(f"{_written(path)} {_look(path)}")


def is_intact(path: Path) -> bool | None:
    """Whether a file that nobody has open is as it was when it was sealed; None when no note tells,
    or there is no file.  Raises OSError when the file cannot be read."""
    try:
        said = _seal_of(path).read_text(errors="replace")
    except OSError:
        return None
    written, _, rest = said.partition(" ")
    if not rest.endswith("\n") or not system.exists(path) or written != _written(path):
        return None
    return rest == _look(path)


def unseal(path: Path) -> None:
    """From now on it is written to; the caller syncs the directory before it is.  Raises
    OSError."""
    _seal_of(path).unlink(missing_ok=True)


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + _SEAL)


def _written(path: Path) -> str:
    return str(path.stat().st_mtime_ns)


def _look(path: Path) -> str:
    length = crc = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            length += len(piece)
            crc = crc32(piece, crc)
    return f"{length} {crc:08x}\n"
