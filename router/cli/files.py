"""DICOM files on disk: finding them, and reading their data sets for an association.

Owns the walk over directories and `FileReader`.  What cannot be sent is named with its reason,
never passed over in silence.  PS3.10.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from router.cli.failures import os_error
from router.dicom.errors import DicomError
from router.dicom.part10 import read_file_meta
from router.net.pool import Proposal

_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_WOULD_BLOCK = (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINTR)


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A file that can be sent; its data set is ``length`` bytes from ``offset``."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    length: int

    @property
    def proposal(self) -> Proposal:
        """The presentation context that it needs."""
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not sent, and why."""

    path: Path
    reason: str


def find(paths: Iterable[Path]) -> Iterator[DicomFile | Skipped]:
    """Everything under the paths, in the order of names; links to directories are not followed."""
    for path in paths:
        if not path.is_dir():
            yield look(path)
            continue
        closed: list[OSError] = []
        for directory, directories, names in os.walk(path, onerror=closed.append):
            directories.sort()
            for name in sorted(names):
                yield look(Path(directory, name))
        for error in closed:
            yield Skipped(Path(os.fsdecode(error.filename)), error.strerror or str(error))


def look(path: Path) -> DicomFile | Skipped:
    """What a file is; tolerant of everything that can be sent all the same."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Skipped(path, "not a regular file")
        with path.open("rb") as file:
            meta = read_file_meta(file)
            size = os.fstat(file.fileno()).st_size
    except DicomError as error:
        return Skipped(path, str(error))
    except OSError as error:
        return Skipped(path, error.strerror or os_error(error))
    if meta.sop_class_uid == _MEDIA_DIRECTORY:
        return Skipped(path, "a DICOMDIR, which lists instances and is none")
    return DicomFile(
        path,
        meta.sop_class_uid,
        meta.sop_instance_uid,
        meta.transfer_syntax_uid,
        meta.data_set_offset,
        size - meta.data_set_offset,
    )


class FileReader:
    """The data set of a file, in order; implements `router.net.pool.Readable`.

    Raises OSError when the file has become shorter than it was.
    """

    def __init__(self, file: DicomFile) -> None:
        self._fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        self._path = file.path
        self._offset = file.offset
        self.length = file.length
        self.remaining = file.length

    def try_read(self, buffers: list[memoryview]) -> bool:
        """Fill all of `buffers` if the bytes are in memory; else False, nothing is read."""
        wanted = sum(map(len, buffers))
        try:
            count = os.preadv(self._fd, buffers, self._offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                return False
            raise
        if count != wanted:
            return False
        self._took(count)
        return True

    def read(self, buffers: list[memoryview]) -> None:
        """Fill all of `buffers`.  Blocking."""
        for buffer in buffers:
            got = 0
            while got < len(buffer):
                count = os.preadv(self._fd, [buffer[got:]], self._offset)
                if count == 0:
                    raise OSError(errno.EIO, "the file has become shorter", str(self._path))
                got += count
                self._took(count)

    def _took(self, count: int) -> None:
        self._offset += count
        self.remaining -= count

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
