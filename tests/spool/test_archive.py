"""The archive: every settled instance is a file there, durably, before it leaves the spool."""

import asyncio
import errno
import json
import os
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from router.spool import system
from router.spool.archive_files import ArchiveFolder, place_of, study_folder
from router.spool.archive_manifest import MANIFEST
from router.spool.archive_task import Moved
from router.spool.errors import SpoolError, SpoolFull
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.reader import Reader
from router.spool.record import Ref
from router.spool.settings import ArchiveSettings
from tests.spool.archiving import archivist, files, left, manifest, once, rows, write
from tests.spool.conftest import OpenRig
from tests.spool.keeping import LARGE, T0, deliver, fill
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload, segment_of

DAY = "2023-11-14"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def rig(open_rig: OpenRig, folder: Path) -> Rig:
    return open_rig(archive=ArchiveSettings(folder=str(folder), after=100.0), spare_segments=3)


# -- a folder that is not as it should be ----------------------------------------------------------


def test_a_missing_folder_is_told_and_never_made(rig: Rig, folder: Path) -> None:
    folder.rmdir()
    refs = fill(rig, 3, 1000, "pacs")
    deliver(rig, refs)
    moved = once(rig)
    assert moved is not None
    assert "no such folder; make it, or mount its file system" in moved.trouble
    assert moved.count == 0
    assert not folder.exists()
    assert rig.step(T0 + 1000).purged == 0
    assert left(rig) == [ref.id for ref in refs]
    folder.mkdir()
    moved = once(rig)
    assert moved is not None
    assert (moved.count, moved.trouble) == (3, "")
    assert left(rig) == []


@pytest.mark.parametrize("at", range(12))
def test_whatever_call_fails_nothing_leaves_the_spool_that_is_not_in_the_archive(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    refs = [*fill(rig, 2, 1000, "pacs"), *fill(rig, 1, LARGE, "pacs")]
    deliver(rig, refs)
    calls = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            nonlocal calls
            if threading.current_thread().name == "spool-archive":
                calls += 1
                if calls == at + 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_all", "sync_data", "sync_directory"):
            patch.setattr(system, name, counted(getattr(system, name)))
        moved = once(rig)
    assert moved is not None
    assert "No space left on device" in moved.trouble
    assert calls > at
    kept = set(left(rig))
    whole = {int(entry["instance"]) for entry in manifest(folder)}  # type: ignore[call-overload]
    assert kept | whole == {ref.id for ref in refs}
    assert len(kept) == 3 - moved.count
    rig.acked = {k: v for k, v in rig.acked.items() if k in kept}
    check_all(rig)
    once(rig)
    assert left(rig) == []
    assert len(files(folder)) == 3, "no remains of the first try"
    assert sorted(str(e["file"]) for e in manifest(folder)) == sorted(
        Path(name).name for name in files(folder)
    )


def test_under_any_pressure_nothing_goes_but_through_the_archive(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 3, 1000, "pacs")
    discarded = rig.commit(payload(9, 1000), meta(9, disposition="discard")).kept
    rig.feed()
    deliver(rig, refs)
    assert once(rig, T0 + 50) is None, "not old enough"
    monkeypatch.setattr(rig.spool, "free_bytes", lambda: -(10 << 20))
    upkeep = rig.step(T0 + 50)
    assert "low disk" in upkeep.refusal
    assert upkeep.purged == 1, "what a rule discarded is not archived"
    assert left(rig) == [ref.id for ref in refs]
    assert discarded.id not in left(rig)
    moved = once(rig, T0 + 50)
    assert moved is not None
    assert moved.count == 3
    assert len(files(folder)) == 3


def test_what_was_discarded_goes_after_its_own_time(open_rig: OpenRig, folder: Path) -> None:
    archive = ArchiveSettings(folder=str(folder), after=5000.0)
    rig = open_rig(archive=archive, keep_settled=1000.0, spare_segments=3)
    rig.commit(payload(9, 1000), meta(9, disposition="discard"))
    rig.feed()
    (row,) = rig.index.instances(Filter(), 10)
    assert row.settled_at is not None
    assert rig.step(row.settled_at + 999).purged == 0
    assert rig.step(row.settled_at + 1001).purged == 1


def test_what_is_not_settled_or_not_old_enough_is_not_moved(rig: Rig, folder: Path) -> None:
    waiting, dead, young, old = (fill(rig, 1, 1000, "pacs")[0] for _ in range(4))
    rig.index.settle([Outcome(dead.id, "pacs", DeliveryState.DEAD, T0)])
    deliver(rig, [young], T0 + 901)
    deliver(rig, [old], T0 + 899)
    moved = once(rig)
    assert moved is not None
    assert moved.count == 1
    assert left(rig) == [waiting.id, dead.id, young.id]


def test_one_that_was_taken_up_again_meanwhile_is_not_purged(rig: Rig, folder: Path) -> None:
    (ref,) = fill(rig, 1, 1000, "pacs")
    deliver(rig, [ref])
    (row,) = rig.keeper.to_archive(T0 + 1000)
    rig.index._db.run("UPDATE instance SET settled_at = NULL, unsettled = 1")
    assert rig.keeper.archived([row.ref.id]).count == 0
    assert left(rig) == [ref.id]


def test_a_damaged_one_stays_and_holds_up_no_other(rig: Rig, folder: Path) -> None:
    bad, good = fill(rig, 2, 1000, "pacs")
    deliver(rig, [bad, good])
    with segment_of(rig, bad).open("r+b") as file:
        file.seek(bad.data_offset + 10)
        file.write(b"\xff\xfe\xff")
    worker = archivist(rig)
    moved = asyncio.run(worker.once())
    assert moved is not None
    assert (moved.count, len(moved.unreadable), moved.trouble) == (1, 1, "")
    assert f"instance {bad.id}" in moved.unreadable[0]
    assert left(rig) == [bad.id]
    assert asyncio.run(worker.once()) is None, "it is not tried every second"
    assert len(files(folder)) == 1


def test_what_the_disk_did_not_give_for_a_while_was_left_for_good(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it stayed in the spool until the next start, though the disk was well again."""
    deliver(rig, fill(rig, 3, 1000, "pacs"))
    now = 1000.0
    worker = archivist(rig, elapsed=lambda: now)

    def failing(reader: Reader, buffers: object) -> None:
        raise SpoolError("reading: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", failing)
        moved = asyncio.run(worker.once())
        assert moved is not None
        assert (moved.count, len(moved.unreadable), moved.trouble) == (0, 3, "")
        assert asyncio.run(worker.once()) is None, "it is not tried every second"
        now += 60.0
        moved = asyncio.run(worker.once())
        assert moved is not None
        assert (moved.count, moved.unreadable) == (0, ()), "told once"
    assert asyncio.run(worker.once()) is None
    now += 60.0
    moved = asyncio.run(worker.once())
    assert moved is not None
    assert moved.count == 3
    assert left(rig) == []
    assert len(files(folder)) == 3


def test_no_descriptor_left_is_no_damage(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 2, 1000, "pacs")

    def none_left(ref: Ref) -> object:
        raise SpoolFull("too many open files")

    monkeypatch.setattr(rig.spool, "open_reader", none_left)
    stored = write(rig, folder, refs)
    assert (stored.ids, stored.unreadable, stored.trouble) == ([], {}, "too many open files")


def test_the_index_that_fails_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(rig, fill(rig, 1, 1000, "pacs"))

    def failing(ids: object) -> None:
        raise SpoolError("the index cannot be written")

    monkeypatch.setattr(rig.index, "purge_these", failing)
    moved = once(rig)
    assert moved == Moved(trouble="the index cannot be written")


def test_files_names_and_manifest_are_durable_before_anything_is_purged(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 2, 1000, "pacs")
    deliver(rig, refs)
    order: list[str] = []

    def noting(place: object, name: str, what: Callable[..., str]) -> None:
        real = getattr(place, name)

        def call(*arguments: object, **more: object) -> object:
            if threading.current_thread().name == "spool-archive" or name == "purge_these":
                order.append(what(*arguments))
            return real(*arguments, **more)

        monkeypatch.setattr(place, name, call)

    def kind(path: Path) -> str:
        return "manifest" if MANIFEST in path.name else "file"

    opened: dict[int, str] = {}
    real_open = os.open

    def opening(path: Path, *arguments: int) -> int:
        fd = real_open(path, *arguments)
        opened[fd] = kind(Path(path))
        return fd

    monkeypatch.setattr(os, "open", opening)
    noting(system, "sync_data", lambda fd: f"sync {opened[fd]}")
    noting(Path, "replace", lambda path, _: f"name {kind(path)}")
    manifest_was_there: list[bool] = []

    def level(path: Path) -> str:
        number = len(path.relative_to(folder).parts)
        if number == 2:
            manifest_was_there.append((path / MANIFEST).exists())
        return f"sync level {number}"

    noting(system, "sync_directory", level)
    noting(rig.index, "purge_these", lambda _: "purge")
    once(rig)
    assert manifest_was_there == [True]
    assert order == [
        *["sync file", "name file"] * 2,
        "sync level 1",
        "sync level 0",
        "sync level 2",
        "sync manifest",
        "purge",
    ]


def test_what_no_file_can_have_stays_and_holds_up_no_other(rig: Rig, folder: Path) -> None:
    long = meta(1, "pacs")._replace(sop_class_uid="1." * 40_000)
    odd = meta(2, "pacs")._replace(received_at=1e17)
    refs = [rig.commit(payload(n, 1000), what).kept for n, what in enumerate((long, odd))]
    rig.feed()
    deliver(rig, refs)
    moved = once(rig)
    assert moved is not None
    assert (moved.count, moved.trouble) == (1, "")
    assert "(0002,0002)" in moved.unreadable[0]
    assert left(rig) == [refs[0].id]
    assert [path.name for path in folder.iterdir() if list(path.glob("*/*.dcm"))] == ["9999-12-31"]


def test_a_mistake_of_ours_does_not_end_the_archive(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(rig, fill(rig, 1, 1000, "pacs"))
    monkeypatch.setattr(ArchiveFolder, "write", lambda *_: 1 / 0)
    assert once(rig) == Moved(trouble="division by zero")


# -- what is there ---------------------------------------------------------------------------------


def test_the_files_are_part_10_and_say_what_was_received(rig: Rig, folder: Path) -> None:
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.7"
    data.PatientName, data.PixelData = "Doe^Jane", bytes(5 * 1024 * KIB)
    data["PixelData"].VR = "OW"
    written = BytesIO()
    pydicom.dcmwrite(
        written, data, implicit_vr=False, little_endian=True, enforce_file_format=False
    )
    what = meta(7, "pacs")
    ref = rig.commit(written.getvalue(), what).kept
    rig.feed()
    deliver(rig, [ref])
    moved = once(rig)
    assert moved == Moved(1, ref.length)
    ((name, content),) = files(folder).items()
    assert name == f"{DAY}/{study_folder('1.2.3')}/{ref.id:016x}-{ref.crc:08x}.dcm"
    read = pydicom.dcmread(BytesIO(content))
    assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4.7"
    assert content.endswith(written.getvalue())
    (entry,) = manifest(folder)
    assert entry["file"] == Path(name).name
    assert entry["study_instance_uid"] == "1.2.3"
    assert entry["sop_instance_uid"] == "1.2.3.4.7"
    assert entry["calling_ae"] == "CT1"
    assert entry["received_at"] == "2023-11-14T22:13:27.000+00:00"
    assert entry["deliveries"] == [
        {
            "destination": "pacs",
            "state": "delivered",
            "at": "2023-11-14T22:13:20.000+00:00",
            "reason": "",
        }
    ]
    place = folder / name
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_two_of_one_uid_are_both_kept_and_no_uid_is_a_path(rig: Rig, folder: Path) -> None:
    evil = meta(1, "pacs")._replace(sop_instance_uid="../../1.2", study_instance_uid="../../../etc")
    refs = [rig.commit(payload(n, 1000), evil).kept for n in (1, 2)]
    rig.feed()
    deliver(rig, refs)
    once(rig)
    names = files(folder)
    assert len(names) == 2
    assert not any(".." in name or "etc" in name for name in names)
    assert {str(e["sop_instance_uid"]) for e in manifest(folder)} == {"../../1.2"}
    assert sorted(p.name for p in folder.iterdir()) == [DAY]
    assert left(rig) == []


def test_without_a_study_there_is_a_folder_for_those() -> None:
    assert study_folder("") == "no-study"
    assert len({study_folder(uid) for uid in ("", "1.2", "1.3", "\ud800")}) == 4


def test_what_was_written_and_not_purged_is_written_again_once(rig: Rig, folder: Path) -> None:
    refs = fill(rig, 2, 1000, "pacs")
    deliver(rig, refs)
    first = write(rig, folder, refs)
    assert first.ids == [ref.id for ref in refs]
    before = files(folder)
    moved = once(rig)  # as after a restart
    assert moved is not None
    assert moved.count == 2
    assert files(folder) == before
    assert len(manifest(folder)) == 2


def test_another_s_file_of_the_same_name_stays(rig: Rig, folder: Path) -> None:
    refs = fill(rig, 1, 1000, "pacs")
    (row,) = rows(rig, refs)
    directory = folder / place_of(row)
    directory.mkdir(parents=True)
    name = f"{row.ref.id:016x}-{row.ref.crc:08x}"
    (directory / f"{name}.dcm").write_bytes(b"of another spool")
    (directory / MANIFEST).write_text(f'{{"file": "{name}.dcm"}}\nsomebody\'s note')
    write(rig, folder, refs)
    assert (directory / f"{name}.dcm").read_bytes() == b"of another spool"
    assert (directory / f"{name}-1.dcm").read_bytes().endswith(payload(0, 1000))
    lines = (directory / MANIFEST).read_text().splitlines()
    assert lines[:2] == [f'{{"file": "{name}.dcm"}}', "somebody's note"]
    assert json.loads(lines[2])["file"] == f"{name}-1.dcm"


def test_a_network_s_folder_that_knows_no_sync_of_directories_will_do(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    refs = fill(rig, 1, 1000, "pacs")
    monkeypatch.setattr(system, "sync_directory", unknown)
    assert write(rig, folder, refs).ids == [refs[0].id]


# -- as a task -------------------------------------------------------------------------------------


def test_a_folder_that_hangs_holds_up_no_stop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(rig, fill(rig, 2, 1000, "pacs"))
    hung, release = threading.Event(), threading.Event()
    real = system.write_all

    def hanging(*arguments: object, **more: object) -> int:
        if threading.current_thread().name == "spool-archive":
            hung.set()
            release.wait(20)
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(system, "write_all", hanging)
    monkeypatch.setattr("router.spool.archive_task._LAST_BATCH", 0.01)
    told: list[Moved] = []

    async def scene() -> None:
        task = asyncio.create_task(archivist(rig, told).run())
        await asyncio.to_thread(hung.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(scene())
    finally:
        release.set()
    assert told == []
    assert len(left(rig)) == 2


def test_a_folder_that_hangs_is_told_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call fails there, so nothing else would ever say why nothing leaves the spool."""
    deliver(rig, fill(rig, 2, 1000, "pacs"))
    release = threading.Event()
    real = system.write_all

    def hanging(*arguments: object, **more: object) -> int:
        if threading.current_thread().name == "spool-archive":
            release.wait(20)
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(system, "write_all", hanging)
    monkeypatch.setattr("router.spool.archive_task._PATIENCE", 0.01)
    told: list[Moved] = []

    def tell(moved: Moved) -> None:
        told.append(moved)
        release.set()

    async def scene() -> Moved | None:
        one = archivist(rig)
        one._tell = tell
        return await one.once()

    moved = asyncio.run(scene())
    (trouble,) = told
    assert "does not answer" in trouble.trouble
    assert moved is not None
    assert (moved.count, moved.trouble) == (2, "")


def test_without_an_archive_nothing_is_asked(open_rig: OpenRig) -> None:
    rig = open_rig()
    deliver(rig, fill(rig, 1, 1000, "pacs"))
    assert once(rig) is None
    assert len(left(rig)) == 1


def test_above_the_high_mark_it_moves_no_more_than_it_takes(
    open_rig: OpenRig, folder: Path
) -> None:
    rig = open_rig(
        archive=ArchiveSettings(folder=str(folder)),
        keep_settled=1e6,
        high_water=0.8,
        low_water=0.6,
        max_size=100 * LARGE,
        spare_segments=2,
    )
    deliver(rig, fill(rig, 85, LARGE, "pacs"))
    runs = []
    for _ in range(20):
        upkeep = rig.step(T0 + 1)
        assert upkeep.purged == 0
        runs += [upkeep.run] if upkeep.run else []
        if once(rig, T0 + 1) is None:
            break
    assert len(files(folder)) + len(left(rig)) == 85
    assert 20 <= len(files(folder)) <= 28
    (run,) = runs
    assert run.ended
    assert run.count == len(files(folder))
