"""What the demonstration sends: the test files of pydicom, and of pydicom-data when installed.

Owns finding them and their digests.  Nothing is fetched from anywhere.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from router.cli.demo.sinks import Identity
from router.cli.files import DicomFile, find

_ROOTS = (
    ("pydicom", "data/test_files"),
    ("pydicom", "data/charset_files"),
    ("data_store", "data"),
)
_TEST_OBJECTS = 2


def collect(directory: Path) -> list[DicomFile]:
    """Every file that can be sent, and two made in ``directory`` that the example discards."""
    roots = [root for package, part in _ROOTS if (root := _root(package, part)) is not None]
    return [found for found in find([*roots, *_made(directory)]) if isinstance(found, DicomFile)]


def identities(files: list[DicomFile]) -> dict[DicomFile, Identity]:
    """What a sink must have of each."""
    return {file: (file.sop_instance_uid, _digest(file)) for file in files}


def _digest(file: DicomFile) -> str:
    with file.path.open("rb") as data:
        data.seek(file.offset)
        return hashlib.file_digest(data, "sha256").hexdigest()


def _root(package: str, part: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / part
    return path if path.is_dir() else None


def _made(directory: Path) -> list[Path]:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    source = get_testdata_file("CT_small.dcm", download=False)
    if not isinstance(source, str):
        return []
    paths = []
    for number in range(1, _TEST_OBJECTS + 1):
        data_set = dcmread(source)
        data_set.PatientID = f"DISCARD-ME-{number}"
        # Beneath its own instance's UID, so that two runs send the same.
        data_set.SOPInstanceUID = f"{data_set.SOPInstanceUID}.{number}"
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        path = directory / f"test-object-{number}.dcm"
        data_set.save_as(path)
        paths.append(path)
    return paths
