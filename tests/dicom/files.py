"""The real files that the tests of this package read: pydicom's own, and `pydicom-data`."""

from functools import cache
from pathlib import Path

import data_store
import pydicom.data

from router.dicom.errors import DicomError
from router.dicom.part10 import FileMeta, read_file_meta

_ROOTS = (
    Path(pydicom.data.__file__).parent / "test_files",
    Path(pydicom.data.__file__).parent / "charset_files",
    Path(data_store.__file__).parent / "data",
)


@cache
def dicom_files() -> tuple[tuple[Path, FileMeta], ...]:
    """Every file whose head can be read, with what it says."""
    found = []
    for root in _ROOTS:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.suffix.startswith(".py"):
                with path.open("rb") as file:
                    try:
                        found.append((path, read_file_meta(file)))
                    except DicomError:
                        continue
    return tuple(found)


def data_set(path: Path, meta: FileMeta) -> bytes:
    """The bytes of a file behind its head."""
    return path.read_bytes()[meta.data_set_offset :]
