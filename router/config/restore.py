"""Putting the files of a configuration back to what they were, all of them or none.

Owns the order of the steps and the journal by which a broken-off restoring is finished or undone
at the next occasion.  The journal lies beside the configuration file, not in the data directory:
it must be found before any configuration is read.  Must not know what the files mean.

1. The new contents are written under other names and synced: what is missing of room or rights
   shows here, and nothing has changed.
2. The journal, with old and new contents, is made durable.  From here on it will be done.
3. Each file is replaced by a rename.  If one cannot be, the journal is made to say that the old
   contents count, and they are put back.
4. The journal is made to say that it is done, and is removed.

A journal may outlive the work: the disk failed at the very end.  What it would put in place of a
file is therefore put there only while that file is the very one that was there, not one with the
same contents that somebody wrote since.
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from router.config import durable
from router.spool import system

State: TypeAlias = Literal["preparing", "going on", "going back", "done"]

Identity: TypeAlias = tuple[int, int]
"""Inode and time of the last change of contents (ns): what tells a file from a later one with the
same contents.  A rename keeps both."""

_FIXES = {
    errno.EROFS: "its file system is read-only: change the files where they come from",
    errno.EACCES: "its directory may not be written by this user",
    errno.EPERM: "its directory may not be written by this user",
    errno.EBUSY: "it is mounted by itself: mount its directory instead, or change it where it "
    "comes from",
    errno.ENOSPC: "its disk is full",
    errno.EDQUOT: "its disk is full for this user",
}


class RestoreError(Exception):
    """The files could not be put back; ``fix`` says what to do.

    Nothing has changed, unless the message says so.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Step:
    """One file: what lies there and what shall, None being no file; its rights and whose it is.

    ``was`` is the file that lies there, ``becomes`` the one that waits to replace it; None while
    that is not known, and for no file.
    """

    path: Path
    old: bytes | None
    new: bytes | None
    mode: int
    owner: durable.Owner
    was: Identity | None = None
    becomes: Identity | None = None

    @property
    def beside(self) -> Path:
        """Where the new contents wait; hidden, so that no pattern of an include matches it."""
        return self.path.with_name(f".{self.path.name}.dcmrouter-new")


def read(path: Path) -> bytes | None:
    """What lies there, None for no file.  Raises RestoreError."""
    return _readable(path)[0]


def _readable(path: Path) -> tuple[bytes | None, Identity | None]:
    try:
        return _found(path)
    except OSError as error:
        raise RestoreError(f"{path} cannot be read: {error.strerror}") from None


def _found(path: Path) -> tuple[bytes | None, Identity | None]:
    """What lies there, and which file it is.  Raises OSError."""
    try:
        with path.open("rb") as file:
            return file.read(), _identity(os.fstat(file.fileno()))
    except FileNotFoundError:
        return None, None


def _identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_mtime_ns


def steps_to(wanted: Sequence[tuple[Path, bytes | None]], config: Path) -> tuple[Step, ...]:
    """What must be done that the files have these contents.  Links are followed, and stay.

    A file that is not there gets the rights of ``config``.  Raises RestoreError.
    """
    steps = []
    for path, new in wanted:
        real = Path(os.path.realpath(path))
        old = read(real)
        if old != new:
            steps.append(Step(real, old, new, *_rights(real, config)))
    return tuple(steps)


def _rights(path: Path, model: Path) -> tuple[int, durable.Owner]:
    for like in (path, model):
        with contextlib.suppress(FileNotFoundError):
            status = like.stat()
            return status.st_mode & 0o7777, (status.st_uid, status.st_gid)
    return 0o600, (os.geteuid(), os.getegid())


def reverse(steps: Sequence[Step]) -> tuple[Step, ...]:
    """What takes them back."""
    return tuple(replace(s, old=s.new, new=s.old, was=s.becomes, becomes=s.was) for s in steps)


def restore(config: Path, steps: Sequence[Step]) -> None:
    """Do all the steps, or none.  ``config`` is the configuration file.  Raises RestoreError."""
    if not steps:
        return
    journal = _journal_of(config)
    with _locked(journal.parent):
        if _finish(journal):
            raise RestoreError(
                "a restoring that was broken off has been brought to its end just now",
                "look at the files, and ask again",
            )
        steps = _prepare(journal, _unchanged(steps))
        try:
            _rename_all(steps)
        except OSError as error:
            _go_back(journal, steps, error)
            raise _explained(error, steps) from error
        # It is done.  A journal that stays is found to be fulfilled at the next occasion.
        with contextlib.suppress(OSError):
            _forget(journal, steps)


def finish(config: Path) -> str:
    """Bring a restoring that was broken off to its end; "" when there is none, else what was done.

    To be called before the files are read.  Raises RestoreError when it cannot be finished: the
    files are then partly old and partly new.
    """
    journal = _journal_of(config)
    unborn = _unborn(journal)
    if not (os.path.lexists(journal) or os.path.lexists(unborn)):
        return ""
    with _locked(journal.parent):
        durable.remove(unborn)
        return _finish(journal)


def _journal_of(config: Path) -> Path:
    real = Path(os.path.realpath(config))
    return real.with_name(f".{real.name}.dcmrouter-rollback")


def _unborn(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.new")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(f"{directory} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise RestoreError(f"{error.filename or directory}: {error.strerror or error}") from error
    finally:
        os.close(fd)


def _unchanged(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, with the files that are to be replaced.  Raises RestoreError."""
    result = []
    for step in steps:
        data, was = _readable(step.path)
        if data != step.old:
            raise RestoreError(f"{step.path} was changed meanwhile", "ask again")
        result.append(replace(step, was=was, becomes=None))
    return tuple(result)


def _prepare(journal: Path, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps 1 and 2; nothing is left of them when they fail.  The steps, with the new files."""
    ready = []
    try:
        _write_journal(journal, "preparing", steps)
        for step in steps:
            if step.new is not None:
                step.path.parent.mkdir(parents=True, exist_ok=True)
                _write_beside(step)
                ready.append(replace(step, becomes=_identity(step.beside.stat())))
            else:
                # A directory that cannot be written must show here, not half-way.
                _must_be_writable(step.path)
                ready.append(step)
        for directory in _directories(steps):
            durable.sync_directory(directory)
        _write_journal(journal, "going on", ready)
    except OSError as error:
        with contextlib.suppress(OSError):
            for step in steps:
                durable.remove(step.beside)
            durable.remove(_unborn(journal))
            durable.remove(journal)
        raise _explained(error, steps) from error
    return tuple(ready)


def _write_beside(step: Step) -> None:
    durable.write(step.beside, step.new or b"", step.mode, step.owner)


def _must_be_writable(path: Path) -> None:
    if not os.access(path.parent, os.W_OK):
        read_only = os.statvfs(path.parent).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number), str(path))


def _rename_all(steps: Sequence[Step]) -> None:
    for step in steps:
        try:
            if step.new is None:
                durable.remove(step.path)
            else:
                durable.replace(step.beside, step.path)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(step.path)) from error
    for directory in _directories(steps):
        durable.sync_directory(directory)


def _go_back(journal: Path, steps: Sequence[Step], why: OSError) -> None:
    """Put the old contents back, all of which were there a moment ago."""
    try:
        _write_journal(journal, "going back", steps)
        _settle(reverse(steps))
        _forget(journal, steps)
    except OSError as error:
        raise RestoreError(
            f"{_explained(why, steps)}; and what had been replaced already could not be put "
            f"back: {_explained(error, steps)}. The files are partly old and partly new",
            "make their directories writable and ask again, or start the gateway: that brings it "
            "to its end first",
        ) from error


def _forget(journal: Path, steps: Sequence[Step]) -> None:
    """The end: no journal, no files beside."""
    # A disk may take the one and not the other: either keeps this from being done once more.
    with contextlib.suppress(OSError):
        _write_journal(journal, "done", steps)
    durable.remove(_unborn(journal))
    for step in steps:
        durable.remove(step.beside)
    for directory in _directories(steps):
        durable.sync_directory(directory)
    durable.remove(journal)
    durable.sync_directory(journal.parent)


def _finish(journal: Path) -> str:
    found = _read_journal(journal)
    if found is None:
        return ""
    state, steps = found
    try:
        left = []
        if state in ("going on", "going back"):
            left = _settle(steps if state == "going on" else reverse(steps))
        _forget(journal, steps)
    except OSError as error:
        refusal = _explained(error, steps)
        raise RestoreError(
            f"a restoring of the configuration was broken off and cannot be finished: {refusal}",
            refusal.fix,
        ) from error
    if state == "done":
        return ""
    if state == "preparing":
        return "a restoring of the configuration was broken off before it changed anything"
    done = "finished" if state == "going on" else "taken back"
    text = f"a restoring of the configuration was broken off; it is {done}"
    if left:
        text += f"; changed by hand meanwhile, and left so: {', '.join(map(str, left))}"
    return text


def _settle(steps: Sequence[Step]) -> list[Path]:
    """See that each file has its new contents; those that somebody else wrote meanwhile."""
    others = []
    for step in steps:
        now, which = _found(step.path)
        if now == step.new:
            continue
        if now != step.old or (step.was is not None and which != step.was):
            others.append(step.path)
        elif step.new is None:
            durable.remove(step.path)
        else:
            _write_beside(step)
            durable.replace(step.beside, step.path)
    for directory in _directories(steps):
        durable.sync_directory(directory)
    return others


def _write_journal(journal: Path, state: State, steps: Sequence[Step]) -> None:
    value: dict[str, Any] = {
        "state": state,
        "steps": [
            asdict(s) | {"path": os.fspath(s.path), "old": _encode(s.old), "new": _encode(s.new)}
            for s in steps
        ],
    }
    new = _unborn(journal)
    durable.write(new, json.dumps(value | {"sum": _sum(value)}).encode(), 0o600)
    durable.replace(new, journal)
    durable.sync_directory(journal.parent)


def _read_journal(journal: Path) -> tuple[State, tuple[Step, ...]] | None:
    """It was put under its name when it was whole; its sum tells what the disk made of it since.

    One of an older version has none.
    """
    data = read(journal)
    if data is None:
        return None
    try:
        value = json.loads(data)
        if value.pop("sum", None) not in (None, _sum(value)) or len(value) != 2:
            raise ValueError("sum")
        steps = tuple(
            Step(
                Path(item["path"]),
                _decode(item["old"]),
                _decode(item["new"]),
                int(item["mode"]),
                (int(item["owner"][0]), int(item["owner"][1])),
                _pair(item["was"]),
                _pair(item["becomes"]),
            )
            for item in value["steps"]
        )
        state: State = value["state"]
        if state not in get_args(State):
            raise ValueError(state)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise RestoreError(
            f"{journal} is not what a restoring writes",
            "look at the configuration files, then remove it",
        ) from None
    return state, steps


def _sum(value: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(value).encode())


def _pair(value: Any) -> Identity | None:
    return None if value is None else (int(value[0]), int(value[1]))


def _directories(steps: Sequence[Step]) -> list[Path]:
    return [d for d in dict.fromkeys(step.path.parent for step in steps) if system.is_directory(d)]


def _explained(error: OSError, steps: Sequence[Step]) -> RestoreError:
    """With the name of the file that was meant, not of the one beside it."""
    names = {os.fspath(step.beside): os.fspath(step.path) for step in steps}
    name = names.get(str(error.filename), str(error.filename or "a file"))
    words = error.strerror or str(error)
    return RestoreError(f"{name} cannot be written: {words}", _FIXES.get(error.errno or 0, ""))


def _encode(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _decode(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
