"""An index as it is at a moment, while somebody has it open."""

from contextlib import closing
from pathlib import Path

from router.spool import sqlite


def copy_index(path: Path, to: Path) -> None:
    """Into a file of its own, with what is still in the log."""
    source, target = sqlite.connect(path), sqlite.connect(to)
    with closing(source), closing(target), target.backup("main", source, "main") as copy:
        copy.step()


def index_bytes(path: Path) -> bytes:
    """The same, in memory."""
    to = path.with_name("copy.sqlite")
    copy_index(path, to)
    found = to.read_bytes()
    for each in path.parent.glob("copy.sqlite*"):
        each.unlink()
    return found
