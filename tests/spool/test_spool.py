"""The directory: its lock, its format, and a disk that is really full."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.spool import segments as segments_module
from router.spool import system
from router.spool.errors import SpoolError, SpoolFull, SpoolLocked
from router.spool.spool import Spool, lock_directory
from tests.interop.tools import need
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Loop, Rig, check_all, meta, payload, settings, settle

MIB = 1024 * KIB
HOLDER = """
import sys
from pathlib import Path
from router.spool.spool import lock_directory
lock = lock_directory(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def opened(directory: Path) -> Spool:
    return Spool.open(directory, settings(), lambda call: call(), lambda *_: None)


def test_a_second_process_is_refused_and_told_whose_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "locked\n"
        for _ in range(2):
            with pytest.raises(SpoolLocked, match=rf"in use by process {holder.pid};"):
                opened(directory)
        holder.kill()
        holder.wait()
    opened(directory).close()


def test_a_lock_file_that_was_removed_lets_nobody_in(open_rig: OpenRig) -> None:
    """As one does who takes it for what a crash left: two would write to the same segments."""
    rig = open_rig()
    (rig.spool.directory / "lock").unlink()
    with pytest.raises(SpoolLocked, match="in use by process unknown"):
        opened(rig.spool.directory)
    rig.commit_many(3, 3000, "pacs")
    rig.close()
    opened(rig.spool.directory).close()


def test_the_lock_goes_with_the_spool(rig: Rig) -> None:
    with pytest.raises(SpoolLocked, match=f"process {os.getpid()};"):
        opened(rig.spool.directory)
    rig.close()
    opened(rig.spool.directory).close()


def test_a_shorter_pid_leaves_nothing_of_the_longer(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4194304\n")
    held = lock_directory(tmp_path)
    with pytest.raises(SpoolLocked, match=f"process {os.getpid()};"):
        lock_directory(tmp_path)
    held.close()


def test_a_full_disk_does_not_keep_the_lock_from_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("router.spool.spool.os.pwrite", full)
    held = lock_directory(tmp_path)
    with pytest.raises(SpoolLocked):
        lock_directory(tmp_path)
    held.close()


@pytest.mark.parametrize("text", ["2\n", "99\n", "", "x\n", "-1\n"])
def test_another_format_is_refused_and_left(tmp_path: Path, text: str) -> None:
    opened(tmp_path).close()
    (tmp_path / "format").write_text(text)
    with pytest.raises(SpoolError, match=r"format .* knows up to 1"):
        opened(tmp_path)
    assert (tmp_path / "format").read_text() == text
    (tmp_path / "format").write_text("1\n")
    opened(tmp_path).close()  # the lock was let go


def test_the_format_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An empty file, as a power cut may leave it, would be of no known format.
    order: list[str] = []
    replace, sync = Path.replace, system.sync_data
    monkeypatch.setattr(Path, "replace", lambda s, t: order.append("rename") or replace(s, t))
    monkeypatch.setattr(system, "sync_data", lambda fd: order.append("sync") or sync(fd))
    opened(tmp_path).close()
    assert order[:2] == ["sync", "rename"]
    assert (tmp_path / "format").read_text() == "1\n"
    assert not (tmp_path / "format.new").exists()


def test_the_names_of_new_directories_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = system.sync_directory
    monkeypatch.setattr(system, "sync_directory", lambda p: synced.append(p) or real(p))
    directory = tmp_path / "data" / "spool"
    opened(directory).close()
    assert {tmp_path, tmp_path / "data", directory} <= set(synced)
    assert synced[-1] == directory, "large and segments were made before"


def test_new_directories_whose_names_could_not_be_synced_are_made_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the kernel tells of it once, and all that the next start took was in a directory
    whose name a power cut could take."""
    data = tmp_path / "data"
    made: list[Path] = []
    real = Path.mkdir

    def failing(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def noting(path: Path, *arguments: int, **more: int) -> None:
        real(path, *arguments, **more)
        made.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(system, "sync_directory", failing)
        with pytest.raises(SpoolError, match="Input/output error"):
            opened(data / "spool")
    monkeypatch.setattr(Path, "mkdir", noting)
    opened(data / "spool").close()
    assert data in made


def test_a_directory_that_cannot_be_made_is_an_error_of_the_spool(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="opening the spool"):
        opened(tmp_path / "file" / "spool")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "large").write_text("")
    with pytest.raises(SpoolError, match="opening the spool"):
        opened(tmp_path / "spool")


def test_a_start_without_space_forwards_and_refuses(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    rig.commit_many(3, 100_000, "pacs")
    rig.close()
    spares = [p for p in (rig.spool.directory / "segments").iterdir()]  # noqa: C416
    monkeypatch.setattr(segments_module, "free_bytes", lambda _: 0)
    again = open_rig()
    assert "no space" in again.spool.refusal
    assert spares
    again.acked = rig.acked
    check_all(again)
    assert isinstance(again.commit(b"x", meta(9)).error, SpoolFull)
    monkeypatch.undo()
    assert again.step().refusal == ""
    assert again.commit(b"x", meta(9)).error is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    need(os.geteuid() == 0, "mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    need(mounted.returncode == 0, f"a tmpfs cannot be mounted: {mounted.stderr.strip()}")
    yield place
    # Lazily: a test that failed may have left files open.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_a_full_disk_is_told_costs_nothing_and_passes(
    small_disk: Path, loop: Loop, size: int
) -> None:
    ballast = small_disk / "ballast"
    rig = Rig(
        small_disk / "data", loop, settings(segment_size=MIB, large_instance=MIB // 4)
    ).start()
    errors = []
    for n in range(1000):
        outcome = rig.commit(payload(n, size), meta(n, "pacs"))
        if outcome.error is not None:
            errors.append(outcome.error)
            if len(errors) == 3:
                break
    assert [type(error) for error in errors] == [SpoolFull] * 3
    assert rig.acked
    settle(rig)
    for path in rig.spool.large_directory.iterdir():
        assert int(path.stem, 16) in rig.acked, "a half record stayed"
    for ref, _, _ in rig.ends:
        assert rig.read(ref) == rig.acked[ref.id][0]
    rig.feed()
    check_all(rig)
    upkeep = rig.step()
    assert upkeep.purged == 0

    restarted_from = rig.acked
    rig.close()
    ballast.write_bytes(b"")
    rig = Rig(
        small_disk / "data", loop, settings(segment_size=MIB, large_instance=MIB // 4)
    ).start()
    rig.acked = dict(restarted_from)
    assert rig.report.damage == []
    check_all(rig)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    rig.step()
    assert rig.commit(payload(5000, size), meta(5000, "pacs")).error is None
    rig.feed()
    check_all(rig)
    rig.close()
