"""Files put back: old or new, never half, whatever fails and whenever the process is killed."""

import errno
import functools
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.config import durable
from router.config.restore import RestoreError, finish, restore, reverse, steps_to

CALLS = ("write", "replace", "remove", "sync_directory")


class Home:
    """A configuration in two directories, and what shall become of it: all three ways of change."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.wanted: list[tuple[Path, bytes | None]] = [
            (self.config, b"new configuration"),
            (directory / "rules.d" / "10.yaml", b"new 10"),
            (directory / "rules.d" / "20.yaml", None),
            (directory / "more" / "30.yaml", b"new 30"),
        ]
        (directory / "rules.d").mkdir(parents=True)
        self.config.write_bytes(b"old configuration")
        (directory / "rules.d" / "10.yaml").write_bytes(b"old 10")
        (directory / "rules.d" / "20.yaml").write_bytes(b"old 20")
        (directory / "rules.d" / "40.yaml").write_bytes(b"not touched")
        self.config.chmod(0o640)
        (directory / "rules.d" / "20.yaml").chmod(0o604)
        self.old = self.files()

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Contents and modes, hidden files included."""
        return {
            str(p.relative_to(self.directory)): (p.read_bytes(), stat.S_IMODE(p.stat().st_mode))
            for p in sorted(self.directory.rglob("*"))
            if p.is_file()
        }

    @property
    def new(self) -> dict[str, tuple[bytes, int]]:
        changed = {k: v for k, v in self.old.items() if k != "rules.d/20.yaml"}
        changed["config.yaml"] = (b"new configuration", 0o640)
        changed["rules.d/10.yaml"] = (b"new 10", changed["rules.d/10.yaml"][1])
        changed["more/30.yaml"] = (b"new 30", 0o640)
        return changed

    def restore(self) -> None:
        restore(self.config, steps_to(self.wanted, self.config))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "site")


def counted(
    patch: pytest.MonkeyPatch, act: Callable[[], None] | None = None, at: int = 0
) -> list[str]:
    """The calls of the system, counted; before the one of number `at` there is `act`."""
    calls: list[str] = []

    def counting(name: str) -> Callable[..., object]:
        real = getattr(durable, name)

        def call(*args: object) -> object:
            calls.append(f"{name} {args[0]}")
            if len(calls) == at and act is not None:
                act()
            return real(*args)

        return call

    for name in CALLS:
        patch.setattr(durable, name, counting(name))
    return calls


def number_of_calls(directory: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        calls = counted(patch)
        Home(directory).restore()
    return len(calls)


def killed_at(home: Home, at: int, work: Callable[[], object]) -> bool:
    """Whether a process of its own that does this was killed before that call."""
    child = os.fork()
    if not child:
        try:
            with pytest.MonkeyPatch.context() as patch:
                counted(patch, lambda: os.kill(os.getpid(), signal.SIGKILL), at)
                work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not go on as a second pytest
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


# -- what goes wrong ---------------------------------------------------------------------------


def test_killed_at_any_moment_the_next_occasion_leaves_all_old_or_all_new(tmp_path: Path) -> None:
    total = number_of_calls(tmp_path / "counted")
    assert total > 15
    ends = []
    for at in range(1, total + 1):
        home = Home(tmp_path / str(at))
        assert killed_at(home, at, home.restore)
        said = finish(home.config)
        assert home.files() in (home.old, home.new), f"killed before call {at}"
        ends.append("new" if home.files() == home.new else "old")
        if "finished" in said:
            assert ends[-1] == "new"
        assert finish(home.config) == ""
        home.restore()
        assert home.files() == home.new
    # Old up to the moment at which it is sure to be done, new from then on.
    assert ends == sorted(ends, reverse=True)
    assert set(ends) == {"old", "new"}


def test_killed_while_it_is_finished_it_is_finished_the_time_after(tmp_path: Path) -> None:
    total = number_of_calls(tmp_path / "counted")
    for at in range(1, total + 1):
        for again in range(1, 30):
            home = Home(tmp_path / f"{at}-{again}")
            assert killed_at(home, at, home.restore)
            broken_off = killed_at(home, again, functools.partial(finish, home.config))
            finish(home.config)
            assert home.files() in (home.old, home.new)
            if not broken_off:
                break
        else:
            pytest.fail("finishing it has no end")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EBUSY])
def test_whatever_call_fails_all_is_as_it_was(tmp_path: Path, number: int) -> None:
    total = number_of_calls(tmp_path / "counted")

    def refuse() -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    for at in range(1, total + 1):
        home = Home(tmp_path / str(at))
        with pytest.MonkeyPatch.context() as patch:
            counted(patch, refuse, at)
            try:
                home.restore()
            except RestoreError as error:
                failed = str(error)
            else:
                failed = ""
        assert not failed or os.strerror(number) in failed
        assert failed or at > total // 2, "only what comes after the deed may fail unseen"
        finish(home.config)
        assert home.files() == (home.old if failed else home.new)


def test_a_file_that_cannot_be_replaced_has_the_others_put_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.replace

    def busy(source: Path, target: Path) -> None:
        if target.name == "30.yaml":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(source))
        real(source, target)

    monkeypatch.setattr(durable, "replace", busy)
    with pytest.raises(RestoreError, match=r"more/30\.yaml cannot be written: Device or") as found:
        home.restore()
    assert "mount its directory instead" in found.value.fix
    assert home.files() == home.old
    assert finish(home.config) == ""


def test_what_cannot_be_put_back_is_said_and_done_later(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.replace
    broken: list[str] = []

    def failing(source: Path, target: Path) -> None:
        if broken or target.name == "30.yaml":
            if not broken:
                broken.append(target.name)
            elif target.suffix == ".yaml":
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
            else:
                return real(source, target)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", failing)
        with pytest.raises(RestoreError, match="partly old and partly new"):
            home.restore()
        with pytest.raises(RestoreError, match="broken off and cannot be finished"):
            finish(home.config)
    assert "taken back" in finish(home.config)
    assert home.files() == home.old


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_names_the_file(home: Home) -> None:
    (home.directory / "rules.d").chmod(0o500)
    try:
        with pytest.raises(RestoreError, match=r"rules\.d/10\.yaml cannot be written: Permission"):
            home.restore()
    finally:
        (home.directory / "rules.d").chmod(0o700)
    assert home.files() == home.old


def test_a_removal_that_cannot_be_done_shows_before_anything_changed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.wanted = [home.wanted[0], home.wanted[2]]
    monkeypatch.setattr(os, "access", lambda path, mode: "rules.d" not in str(path))
    with pytest.raises(RestoreError, match=r"rules\.d/20\.yaml cannot be written: Permission"):
        home.restore()
    assert home.files() == home.old


def test_a_file_changed_since_it_was_looked_at_is_not_overwritten(home: Home) -> None:
    steps = steps_to(home.wanted, home.config)
    (home.directory / "rules.d" / "10.yaml").write_bytes(b"by hand")
    before = home.files()
    with pytest.raises(RestoreError, match=r"10\.yaml was changed meanwhile"):
        restore(home.config, steps)
    assert home.files() == before


def test_a_file_changed_by_hand_after_the_kill_is_left_and_named(home: Home) -> None:
    total = number_of_calls(home.directory.parent / "counted")
    for at in range(total, 0, -1):
        other = Home(home.directory.parent / str(at))
        killed_at(other, at, other.restore)
        if other.config.read_bytes() == b"old configuration":
            break
    # Sure to be done, and not begun.
    changed = other.directory / "rules.d" / "10.yaml"
    changed.write_bytes(b"by hand")
    said = finish(other.config)
    assert f"changed by hand meanwhile, and left so: {changed}" in said
    assert changed.read_bytes() == b"by hand"
    assert other.config.read_bytes() == b"new configuration"


def no_journal_goes(patch: pytest.MonkeyPatch, *, nor_is_written_when_done: bool = False) -> None:
    """A disk on which the end of a restoring fails: the journal stays."""
    remove, write = durable.remove, durable.write

    def removing(path: Path) -> None:
        if path.name.endswith(".dcmrouter-rollback"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        remove(path)

    def writing(path: Path, data: bytes, *more: Any) -> None:
        if b'"done"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data, *more)

    patch.setattr(durable, "remove", removing)
    if nor_is_written_when_done:
        patch.setattr(durable, "write", writing)


@pytest.mark.parametrize("how", ["in place", "by a rename", "with its old time"])
@pytest.mark.parametrize("full", [False, True], ids=["done is written", "done is not written"])
def test_a_journal_that_stayed_overwrote_what_was_put_back_by_hand(
    home: Home, how: str, full: bool
) -> None:
    config, before = home.config, home.config.stat()
    with pytest.MonkeyPatch.context() as patch:
        no_journal_goes(patch, nor_is_written_when_done=full)
        home.restore()
    # Hours later somebody wants the old contents after all.
    if how == "by a rename":
        other = config.with_name("other")
        other.write_bytes(b"old configuration")
        other.replace(config)
    else:
        config.write_bytes(b"old configuration")
    if how == "with its old time":
        os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = finish(config)
    assert config.read_bytes() == b"old configuration"
    assert (f"changed by hand meanwhile, and left so: {config}" in said) is full
    assert finish(config) == ""
    assert {name for name in home.files() if "dcmrouter" in name} == set()


def test_a_journal_that_stayed_kept_the_next_restoring_from_its_work(home: Home) -> None:
    with pytest.MonkeyPatch.context() as patch:
        no_journal_goes(patch)
        home.restore()
    home.config.write_bytes(b"by hand")
    home.restore()
    assert home.files() == home.new


def test_what_was_put_back_by_hand_while_it_was_taken_back_is_left_and_named(home: Home) -> None:
    real = durable.replace
    broken: list[Path] = []

    def failing(source: Path, target: Path) -> None:
        if target.suffix == ".yaml" and (broken or target.name == "30.yaml"):
            broken.append(target)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "replace", failing)
        with pytest.raises(RestoreError, match="partly old and partly new"):
            home.restore()
    assert home.config.read_bytes() == b"new configuration"
    home.config.write_bytes(b"new configuration")
    os.utime(home.config, ns=(1, 1))
    said = finish(home.config)
    assert f"taken back; changed by hand meanwhile, and left so: {home.config}" in said
    assert home.config.read_bytes() == b"new configuration"
    assert (home.directory / "rules.d" / "10.yaml").read_bytes() == b"old 10"


def test_a_journal_that_is_none_is_refused_with_its_name(home: Home) -> None:
    journal = home.directory / ".config.yaml.dcmrouter-rollback"
    for text in ("", "{}", "[]", '{"state": "x", "steps": []}', '{"state": "going on"}'):
        journal.write_text(text)
        with pytest.raises(RestoreError, match="is not what a restoring writes") as found:
            finish(home.config)
        assert str(journal) in str(found.value)
    assert home.old.items() <= home.files().items()


def test_a_journal_of_which_a_bit_flipped_put_another_configuration_in_place(home: Home) -> None:
    """Whatever bit it is: the files stay what they are, and it is named."""
    journal = home.directory / ".config.yaml.dcmrouter-rollback"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            durable, "replace", lambda s, t: killed() if t == home.config else s.rename(t)
        )
        with pytest.raises(KeyboardInterrupt):
            home.restore()
    whole = journal.read_bytes()
    before = home.files()
    del before[journal.name]
    for at in range(0, len(whole) * 8, 7):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        journal.write_bytes(data)
        with pytest.raises(RestoreError, match="is not what a restoring writes"):
            finish(home.config)
        assert before.items() <= home.files().items()
    journal.write_bytes(whole)
    assert "it is finished" in finish(home.config)
    assert home.files() == home.new


# -- what goes right ---------------------------------------------------------------------------


def test_all_files_are_put_back_with_their_rights(home: Home) -> None:
    home.restore()
    assert home.files() == home.new
    assert finish(home.config) == ""


def test_the_way_back_of_the_way_back(home: Home) -> None:
    steps = steps_to(home.wanted, home.config)
    restore(home.config, steps)
    restore(home.config, reverse(steps))
    assert home.files() == home.old


def test_links_stay_links(home: Home) -> None:
    elsewhere = home.directory / "checkout"
    elsewhere.mkdir()
    real = home.config.rename(elsewhere / "site.yaml")
    home.config.symlink_to(real)
    home.restore()
    assert home.config.is_symlink()
    assert real.read_bytes() == b"new configuration"


def test_nothing_to_do_touches_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.restore()
    calls = counted(monkeypatch)
    home.restore()
    assert finish(home.config) == ""
    assert calls == []
