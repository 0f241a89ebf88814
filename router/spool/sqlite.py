"""SQLite as the index uses it: every page ends in a check sum, looked at when the page is read.

Owns the choice of the library and how a file is opened.  Must not know a table.

The library is apsw: it brings an SQLite of its own, the same on every system, and the extension
that keeps the sums (https://sqlite.org/cksumvfs.html), which Python's own module cannot load
everywhere.  Nothing else in the process may open the same file by another SQLite: one that closes
it gives up the locks of the other (https://sqlite.org/howtocorrupt.html, 2.2.1).
"""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import apsw
import apsw.sqlite_extra

from router.spool.errors import SpoolError

Connection = apsw.Connection
Cursor = apsw.Cursor
Error = apsw.Error

FULL = (apsw.SQLITE_FULL, apsw.SQLITE_IOERR_SHMSIZE)
DAMAGED = (apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB)
SUM_DIFFERS = apsw.SQLITE_IOERR_DATA
"""A page is not what was written."""

_VFS = "cksmvfs"
_SUM = 8
"""Bytes of a page that are kept for its sum."""
_STATEMENTS = 256


def connect(
    path: Path | str,
    *,
    read_only: bool = False,
    immutable: bool = False,
    timeout: float = 0.0,
    kind: Callable[..., Connection] = Connection,
) -> Connection:
    """Open a file, or make it; `timeout` in seconds is how long to wait for others' locks.

    Pages of a new file have sums; of one that was made without them see `has_sums`.  With
    `immutable` nobody may have it open to write.  Raises Error, and SpoolError when the extension
    is not installed.
    """
    _load()
    flags = apsw.SQLITE_OPEN_URI
    flags |= (
        apsw.SQLITE_OPEN_READONLY
        if read_only
        else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    )
    name = f"file:{quote(os.fspath(path))}" + ("?immutable=1" if immutable else "")
    connection = kind(name, flags, _VFS, _STATEMENTS)
    try:
        connection.set_busy_timeout(round(timeout * 1000))
        if not read_only:
            connection.reserve_bytes("main", _SUM)
    except BaseException:
        connection.close()
        raise
    return connection


def has_sums(connection: Connection) -> bool:
    """Whether the pages of the file have sums; one with the index of an older version has none."""
    return bool(connection.execute("PRAGMA checksum_verification").get == "1")


def add_sums(connection: Connection) -> None:
    """Write the whole file anew, with sums, by way of a temporary file.  Raises Error, without a
    change, as on a full disk."""
    connection.execute("PRAGMA temp_store = FILE")  # in memory it would be as large as the index
    connection.reserve_bytes("main", _SUM)  # which other settings of a page take back
    try:
        connection.execute("VACUUM")
    finally:
        connection.execute("PRAGMA temp_store = MEMORY")
        # The sums begin with it; and what a full disk gave for the log is given back.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def code_of(error: Error) -> tuple[int, str]:
    """The extended result code and its name; 0 and "" for what SQLite did not say."""
    code = int(getattr(error, "extendedresult", 0))
    names = apsw.mapping_extended_result_codes, apsw.mapping_result_codes
    return code, next((str(each[code]) for each in names if code in each), "")


def is_damage(error: Error) -> bool:
    """Whether it says that the file is not what was written, or no database at all."""
    code, _ = code_of(error)
    return code & 0xFF in DAMAGED or code == SUM_DIFFERS


def is_complete(statement: str) -> bool:
    """Whether a statement has come to its end."""
    return apsw.complete(statement)


def _load() -> None:
    """Register the extension, once for the process."""
    if _VFS in apsw.vfs_names():
        return
    try:
        first = apsw.Connection(":memory:")
        try:
            apsw.sqlite_extra.load(first, "cksumvfs")
        finally:
            first.close()
    except (LookupError, apsw.sqlite_extra.NotAvailable, apsw.Error) as error:
        raise SpoolError(
            "SQLite's extension cksumvfs is missing, which looks at the sums of the index's pages: "
            f"install apsw from PyPI, whose wheels bring it ({error})"
        ) from error
