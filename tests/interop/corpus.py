"""The real files that are sent: pydicom's own and those of `pydicom-data`, as they lie on disk.

Owns which of them count, and variants of them with other SOP Instance UIDs.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import data_store
import pydicom
import pydicom.data
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

_ROOTS = (
    Path(pydicom.data.__file__).parent / "test_files",
    Path(pydicom.data.__file__).parent / "charset_files",
    Path(data_store.__file__).parent / "data",
)


# Cut short, or of a shape that DCMTK cannot write again: dcmsend does not send these.
_NOT_BY_DCMSEND = frozenset(
    {
        "MR_truncated",
        "SC_rgb_jpeg",
        "emri_small_jpeg_2k_lossless_too_short",
        "explicit_VR-UN",
        "rtdose_rle",
        "rtdose_rle_1frame",
    }
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A Part 10 file with a whole file meta information (PS3.10 §7.1)."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int

    def data_set(self) -> bytes:
        """The bytes behind the file meta information."""
        return self.path.read_bytes()[self.offset :]


@cache
def files() -> tuple[Path, ...]:
    """All of them, the same bytes once."""
    found: dict[bytes, Path] = {}
    for root in _ROOTS:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix != ".py":
                found.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
    return tuple(found.values())


@cache
def samples() -> tuple[Sample, ...]:
    """Those that name their class, instance and transfer syntax.

    DICOMDIR is no composite instance; a file without file meta information says nothing that a
    sender could negotiate with, and one whose own data set is missing has nothing to send.
    """
    found = (read_sample(path) for path in files())
    return tuple(sample for sample in found if sample is not None)


@cache
def loose() -> tuple[Path, ...]:
    """The others, some of which a sender may take all the same."""
    known = {sample.path for sample in samples()}
    return tuple(path for path in files() if path not in known)


def read_sample(path: Path) -> Sample | None:
    """What the head of a file says; None when it is none to be sent."""
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except (InvalidDicomError, EOFError, NotImplementedError, ValueError, AttributeError):
        return None
    names = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    if not all(meta.get(name) for name in (*names, "FileMetaInformationGroupLength")):
        return None
    if meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage:
        return None
    # Preamble, "DICM", and the group length element itself come before what it counts.
    offset = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
    if offset >= path.stat().st_size:
        return None
    sop_class, uid, syntax = (str(meta[name].value) for name in names)
    return Sample(path, sop_class, uid, syntax, offset)


def variants(directory: Path, count: int, largest: int) -> list[Path]:
    """`count` files of at most `largest` bytes, of many classes and transfer syntaxes, distinct.

    All of them are such that dcmsend sends them.
    """
    small = [
        sample
        for sample in samples()
        if sample.path.stat().st_size <= largest and sample.path.stem not in _NOT_BY_DCMSEND
    ]
    return [s.path for s in copies(directory, itertools.cycle(small), count)]


def copies(directory: Path, chosen: Iterable[Sample], count: int | None = None) -> list[Sample]:
    """Copies with other SOP Instance UIDs, each of its own; `count` of them if it is given.

    The UID is overwritten in place by one of the same length, wherever it stands, and nothing
    else is changed.  Left out are files whose data set shows no UID that is long enough.
    """
    made: list[Sample] = []
    directory.mkdir(exist_ok=True)
    for sample in chosen:
        if len(made) == count:
            break
        old = sample.sop_instance_uid.encode()
        if len(old) <= 16 or old not in sample.data_set():
            continue
        uid = f"2.25.1{len(made):0{len(old) - 6}d}"
        path = directory / f"{len(made):05d}.dcm"
        path.write_bytes(sample.path.read_bytes().replace(old, uid.encode()))
        made.append(replace(sample, path=path, sop_instance_uid=uid))
    return made


def rounds(items: tuple[Sample, ...]) -> Iterator[list[Sample]]:
    """The samples in groups in which no SOP Instance UID stands twice."""
    left = list(items)
    while left:
        seen: dict[str, Sample] = {}
        for sample in left:
            seen.setdefault(sample.sop_instance_uid, sample)
        yield list(seen.values())
        chosen = {id(sample) for sample in seen.values()}
        left = [sample for sample in left if id(sample) not in chosen]
