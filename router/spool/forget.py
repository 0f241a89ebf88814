"""Gives a segment file up that is lost for good, so that starts no longer look for it.

Owns the decision whether that may be.  Blocking; while no gateway runs.
"""

from pathlib import Path

from router.spool import system, unread
from router.spool.directory import lock_directory
from router.spool.errors import SpoolError
from router.spool.roll import Roll


def forget(directory: Path, name: str) -> int:
    """The generation that was begun in it, 0 if nobody knows; `directory` is that of the spool.

    What the index names of it stays, and shows up as missing.  Raises SpoolLocked while a gateway
    runs, SpoolError when the file is there, is not missed, or the disk fails.
    """
    lock = lock_directory(directory)
    try:
        segments = directory / "segments"
        roll = Roll(directory / "segments.roll")
        roll.load()
        stem = name.removesuffix(".seg")
        number = int(stem) if stem.isdecimal() else 0
        path = segments / f"{number:08d}.seg"
        generation = roll.generations.get(number)
        if not generation and (
            generation is None or path.name not in unread.load(directory).segments
        ):
            raise SpoolError(f"{name} is not missed: {roll.path} does not name it")
        with system.translated(f"looking for {path}"):
            there = system.exists(path)
        if there:
            raise SpoolError(f"{path} is there; move it away first, if it is of no use")
        roll.remove([number])
        return generation
    finally:
        lock.close()
