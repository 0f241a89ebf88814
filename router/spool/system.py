"""The system calls that the spool's safety rests on, in one place.

Owns whole writes and reads at an offset, syncs of files and directories, and the translation
of OSError.  Tests stand in for these functions to play a disk that fails or forgets.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from router.spool.errors import SpoolError, SpoolFull

IOV_MAX = 1024
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
"""What passes when others give something back: space, or descriptors."""
_DIRECT_BLOCK = 4096
_SYNC_FILE_RANGE_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raises SpoolFull or SpoolError, naming what was being done, in place of OSError."""
    try:
        yield
    except OSError as error:
        raise failure(doing, error) from error


def failure(doing: str, error: OSError) -> SpoolError:
    """SpoolFull or SpoolError, naming what was being done; to be raised from `error`."""
    kind = SpoolFull if error.errno in FULL else SpoolError
    return kind(f"{doing}: {error.strerror or error}")


def write_all(fd: int, buffers: Sequence[bytes | memoryview], offset: int, flags: int = 0) -> int:
    """Write all of `buffers` from `offset`; returns how many bytes.  Raises OSError.

    `flags` are those of ``pwritev2``.
    """
    written = 0
    pending = [b for b in buffers if len(b)]
    while pending:
        count = os.pwritev(fd, pending[:IOV_MAX], offset + written, flags)
        if count == 0:
            raise OSError(errno.EIO, "write returned 0")
        written += count
        while pending and count >= len(pending[0]):
            count -= len(pending.pop(0))
        if count:
            pending[0] = memoryview(pending[0])[count:]
    return written


def read_all(fd: int, count: int, offset: int) -> bytes:
    """`count` bytes from `offset`, fewer only where the file ends.  Raises OSError.

    Of what lies before a bad block the kernel gives a part, and tells of the block the next time.
    """
    data = os.pread(fd, count, offset)
    while data and len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def open_direct(path: Path, flags: int) -> int:
    """Open for `write_blocks`: by O_DIRECT where the file system knows it.  Raises OSError."""
    try:
        return os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags | os.O_CLOEXEC)


def write_blocks(
    fd: int, buffers: Sequence[memoryview], offset: int, *, durably: bool = False
) -> None:
    """Write whole blocks from page-aligned memory, past the page cache where that can be.

    `fd` comes from `open_direct`.  With `durably` they are on the disk when this returns, as after
    `sync_data`, in one call of the system instead of two.  Raises OSError; what was to be written
    is then in an unknown state.
    """
    flags = os.RWF_DSYNC if durably else 0
    try:
        write_all(fd, buffers, offset, flags)
    except OSError as error:
        # Larger blocks than ours are wanted: all of it once more, through the cache, for good.
        if error.errno != errno.EINVAL or not _set_direct(fd, on=False):
            raise
        write_all(fd, buffers, offset, flags)


def write_past_cache(fd: int, buffers: Sequence[memoryview], offset: int) -> None:
    """Write all of `buffers` from `offset`, without filling the page cache where that can be.

    What is a whole number of blocks, in page-aligned memory, goes by O_DIRECT; the rest, and
    everything where the file system knows no O_DIRECT, through the page cache.  Either way it
    is durable only after `sync_data`.  Raises OSError.
    """
    direct = list(buffers)
    rest: list[memoryview] = []
    if len(direct[-1]) % _DIRECT_BLOCK:
        last = direct.pop()
        cut = len(last) & -_DIRECT_BLOCK
        direct += [last[:cut]] if cut else []
        rest = [last[cut:]]
    if direct and _set_direct(fd, on=True):
        try:
            offset += write_all(fd, direct, offset)
            direct = []
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            _set_direct(fd, on=False)
    if direct or rest:
        length = write_all(fd, direct + rest, offset)
        start_writeback(fd, offset, length)


def _set_direct(fd: int, *, on: bool) -> bool:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError:
        return False  # the file system knows no O_DIRECT
    return True


def sync_data(fd: int) -> None:
    """fdatasync.  Raises OSError; what was written before is then in an unknown state."""
    os.fdatasync(fd)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range, so that the later sync finds little to do.

    A hint: where the call is missing or fails, the later sync still does the whole work and
    reports the error.
    """
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def replace_file(path: Path, data: bytes) -> None:
    """Give a file other contents, durably: whole, or it stays as it was.  Raises SpoolError."""
    put_in_place(write_aside(path, data), path)


def write_aside(path: Path, data: bytes) -> Path:
    """Write other contents for a file beside it, durably; where.  Raises SpoolError: the file is
    then as it was."""
    new = path.with_name(f"{path.name}.new")
    with translated(f"writing {path}"), new.open("wb") as file:
        file.write(data)
        file.flush()
        sync_data(file.fileno())
    return new


def put_in_place(new: Path, path: Path) -> None:
    """Let a file stand for another, durably.  Raises SpoolError: it may then be either."""
    with translated(f"writing {path}"):
        new.replace(path)
        sync_directory(path.parent)


def exists(path: Path) -> bool:
    """Whether it is there.  Raises OSError where nobody can tell: from Python 3.14 on `Path.exists`
    takes that for a no, and what is there would be written over."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_directory(path: Path) -> bool:
    """Likewise, whether it is a directory."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def sync_directory(path: Path) -> None:
    """Make creations, renames and removals in a directory durable.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        close(fd)


class NewNames:
    """What is made in one directory by several at once, each of whom makes it durable.

    The kernel tells once that it could not write a directory: to who syncs it first.  A sync after
    that says that all is well, and may be of one whose name was lost with the others (the lesson
    of PostgreSQL, 2018, for names).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._failures = 0
        self._lock = threading.Lock()

    def begin(self) -> int:
        """What `sync` is to be given; before a name is made."""
        return self._failures

    def sync(self, begun: int) -> None:
        """As `sync_directory`; OSError also when that failed for another one since `begin`."""
        with self._lock:  # or the other one may have been told, and not have noted it yet
            try:
                sync_directory(self.directory)
            except OSError:
                self._failures += 1
                raise
            if self._failures != begun:
                raise OSError(errno.EIO, f"a sync of {self.directory.name}/ failed since it began")


def close(fd: int) -> None:
    """Close a descriptor; a negative one is none.

    The descriptor is gone whatever close(2) says, so it must never be closed again: its number
    may be another file's by then.  An error tells of writes that were not synced; what has to be
    durable was synced before.
    """
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)
