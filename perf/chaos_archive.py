"""What lies in the archive of the gateway of `perf.chaos`, held against what was sent.

Owns reading manifests and files as somebody would who has nothing but the folder, and removing
what was found to be sound, so that a long run fills no disk.  Must not import the product.
"""

import hashlib
import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from perf.book import Book

_MANIFEST = "manifest.jsonl"
_META_AT = 144
"""PS3.10 §7.1: preamble, prefix and (0002,0000), whose value counts from here."""


class ArchiveCheck:
    """``archived`` are the SOP Instance UIDs that were found in sound files; ``again`` counts the
    files of those that were found before."""

    def __init__(self, folder: Path, book: Book) -> None:
        self.folder = folder
        self.archived: set[str] = set()
        self.again = 0
        self._book = book
        self._read: dict[Path, int] = {}
        self._seen: set[Path] = set()
        folder.mkdir()

    def collect(self) -> None:
        """Look at what came since the last time, and remove it.  No gateway may be running.

        Whatever is wrong is a fault in the book.  A file without a line, and a last line that is
        torn, are of a batch that was cut short.
        """
        for manifest in sorted(self.folder.glob(f"*/*/{_MANIFEST}")):
            whole = manifest.read_bytes()
            whole = whole[: whole.rfind(b"\n") + 1]
            start = self._read.get(manifest, 0)
            self._read[manifest] = len(whole)
            entries = [self._entry(manifest, line) for line in whole[start:].splitlines()]
            for entry in {e["file"]: e for e in entries if e}.values():
                self._check(manifest.parent / entry["file"], entry)

    def _entry(self, manifest: Path, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            return entry
        self._book.fault(f"{manifest} has a line that is none: {line[:100]!r}")
        return {}

    def _check(self, path: Path, entry: dict[str, Any]) -> None:
        """One file is what its line says, and has the bytes that were sent."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if path not in self._seen:
                self._book.fault(f"{path} has a line, and is not there")
            return
        try:
            uid, body = part_10(content)
        except ValueError as error:
            self._book.fault(f"{path}: {error}")
            return
        digest, _ = self._book.sent.get(uid, (b"", ()))
        if entry.get("sop_instance_uid") != uid:
            self._book.fault(f"{path} is {uid}, its line says {entry.get('sop_instance_uid')}")
        elif hashlib.sha256(body).digest() != digest:
            self._book.fault(f"{path}: {uid} has other bytes than were sent")
        else:
            self.again += uid in self.archived
            self.archived.add(uid)
            self._seen.add(path)
            path.unlink()


def part_10(content: bytes) -> tuple[str, bytes]:
    """SOP Instance UID and data set of a Part 10 file.  Raises ValueError when it is none."""
    try:
        meta = pydicom.dcmread(BytesIO(content), specific_tags=["SOPInstanceUID"]).file_meta
        uid = str(meta.MediaStorageSOPInstanceUID)
        (length,) = struct.unpack_from("<I", content, _META_AT - 4)
    except (InvalidDicomError, AttributeError, EOFError, struct.error) as error:
        raise ValueError(f"no Part 10 file: {error}") from error
    return uid, content[_META_AT + length :]
