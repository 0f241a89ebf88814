"""Which segments earlier starts could not read, and from where on.

Owns the file ``unread`` of a spool directory.  Without it a start that reads such a segment again
would begin where the index has got to meanwhile, and what lies before that would be lost.
"""

from collections.abc import Mapping
from pathlib import Path

from router.spool import system
from router.spool.record import Position

NAME = "unread"


def load(directory: Path) -> dict[str, Position]:
    """Position in the log up to which the index knew all, by the name of a segment's file.

    Raises SpoolError when the file is there and cannot be read.
    """
    path = directory / NAME
    with system.translated(f"reading {path}"):
        try:
            rows = [line.split() for line in path.read_text().split("\n") if line]
        except FileNotFoundError:
            return {}
    return {name: Position(int(generation), int(offset)) for name, generation, offset in rows}


def save(directory: Path, unread: Mapping[str, Position]) -> None:
    """Note them durably, all or nothing.  Raises SpoolError."""
    path = directory / NAME
    new = path.with_name(f"{NAME}.new")
    with system.translated(f"writing {path}"):
        with new.open("w") as file:
            file.writelines(f"{n} {p.generation} {p.offset}\n" for n, p in unread.items())
            file.flush()
            system.sync_data(file.fileno())
        new.replace(path)
        system.sync_directory(directory)
