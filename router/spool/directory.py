"""The directory of a spool: made, locked, and of a format that we know.

Owns ``lock``, ``format`` and the size of its disk.  Must not know what else lies there.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from router.spool import system
from router.spool.errors import SpoolError, SpoolLocked

FORMAT = 1
_FIXES = {
    errno.EROFS: "mount its file system writable (after a fault the kernel makes it read-only: "
    "see its log, check the disk)",
    errno.EACCES: "give the user that the gateway runs as the right to write there",
    errno.EPERM: "give the user that the gateway runs as the right to write there",
}


class Lock:
    """Keeps other processes out of a spool directory until `close`.

    The directory is locked beside its file: whoever takes that for one that a crash left behind,
    and removes it, would else let a second gateway write over what this one acknowledges.
    """

    def __init__(self, *descriptors: int) -> None:
        self._descriptors = descriptors

    def close(self) -> None:
        """Let the directory go."""
        descriptors, self._descriptors = self._descriptors, ()
        for descriptor in descriptors:
            system.close(descriptor)


def lock_directory(directory: Path) -> Lock:
    """Lock a spool directory, made if missing, for this process.

    Raises SpoolLocked, naming the process that has it, or SpoolError.
    """
    with system.translated(f"opening the spool in {directory}"):
        try:
            _make_durably(directory)
            fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if fix := _FIXES.get(error.errno or 0):
                raise SpoolError(
                    f"cannot write to the spool in {directory}: {error.strerror}; {fix}, or set "
                    "another data_dir"
                ) from error
            raise
    whole = -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        whole = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock_whole(whole)
    except BlockingIOError as error:
        owner = _owner(fd)
        Lock(fd, whole).close()
        raise SpoolLocked(
            f"the spool in {directory} is in use by process {owner}; "
            "stop that one, or give this one another data_dir"
        ) from error
    except OSError as error:  # such as a network file system that knows no locks
        Lock(fd, whole).close()
        raise SpoolError(f"locking the spool in {directory}: {error.strerror}") from error
    # Only for the message above: a disk that is full must not keep the gateway from starting.
    with contextlib.suppress(OSError):
        os.pwrite(fd, b"%-20d\n" % os.getpid(), 0)
    return Lock(fd, whole)


def _lock_whole(fd: int) -> None:
    """The directory itself, where its file system can; raises BlockingIOError when another has
    it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # such as NFS, which locks nothing that is not open for writing
        return


def _owner(fd: int) -> str:
    try:
        return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"


def _make_durably(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not system.exists(path)]
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        for path in missing:
            system.sync_directory(path.parent)
    except OSError:
        # The kernel tells of it once: the next start would sync what is there, and hear that all is
        # well.  So it has to make them anew.
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    # What a first start made that was killed before it synced it is not missing any more.  That of
    # the spool itself is synced as the index is opened.
    for path in directory.parents[1:]:
        with contextlib.suppress(OSError):
            system.sync_directory(path)


def check_format(directory: Path) -> None:
    """Note the format of a new spool.  Raises SpoolError for one that we do not know."""
    path = directory / "format"
    with system.translated(f"reading {path}"):
        if not system.exists(path):
            # Whole or not at all: an empty file after a power cut would be of no known format.
            system.replace_file(path, f"{FORMAT}\n".encode())
            return
        text = path.read_text().strip()
    if not text.isdigit() or int(text) > FORMAT:
        raise SpoolError(
            f"the spool in {directory} has format {text!r}, this version knows up to {FORMAT}: "
            "use the version of dcmrouter that wrote it, or a newer one"
        )


def capacity_bytes(directory: Path) -> int:
    """What the file system of `directory` holds, without what is reserved for others than us.
    Raises SpoolError."""
    with system.translated(f"asking for the size of the disk of {directory}"):
        stat = os.statvfs(directory)
    return (stat.f_blocks - stat.f_bfree + stat.f_bavail) * stat.f_frsize
