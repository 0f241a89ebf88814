"""Small files that are there whole or not at all, whatever happens meanwhile.

Owns the calls of the system that the versions of the configuration and their restoring rest on.
Tests stand in for these functions to play a disk that fails, or a process that is killed.
"""

import contextlib
import os
from pathlib import Path

Owner = tuple[int, int]
"""User and group, by number."""


def write(path: Path, data: bytes, mode: int, owner: Owner | None = None) -> None:
    """A new file at ``path``, in place of one that a broken-off write left there.

    Its bytes are on the disk when this returns; its name is after `sync_directory`.  It is given
    to ``owner`` where we may do that.  Raises OSError, naming the file; nothing is left then.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if owner is not None:
                # Only root may give a file away; another's copy is its own, as with an editor.
                with contextlib.suppress(PermissionError):
                    os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def replace(source: Path, target: Path) -> None:
    """``source`` is ``target`` from now on.  Raises OSError."""
    source.replace(target)


def remove(path: Path) -> None:
    """No such file from now on; none before is as good.  Raises OSError."""
    path.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make creations, renames and removals in a directory durable.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    finally:
        os.close(fd)
