"""`spool verify` beside a gateway at work, and what it makes of ordinary states."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.spool import recovery
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.index_view import IndexView
from router.spool.verify import _Verification, verify
from router.spool.verify_report import Report
from tests.spool.conftest import OpenRig
from tests.spool.keeping import deliver, fill
from tests.spool.spool_samples import KIB, Rig, meta, payload, segment_of

LARGE = 300 * KIB


def look(rig: Rig) -> Report:
    return verify(rig.directory / "spool", rig.directory / "index.sqlite")


def kinds(report: Report) -> dict[str, int]:
    return {kind: count for kind, count in report.counts.items() if count}


def test_an_empty_spool_is_sound(rig: Rig) -> None:
    report = look(rig)
    assert report.sound
    assert {part.state for part in report.segments} == {"spare"}


def test_a_spool_without_an_index_and_without_records_is_sound(rig: Rig) -> None:
    rig.close()
    (rig.directory / "index.sqlite").unlink()
    assert look(rig).sound


def test_it_leaves_no_file_behind(open_rig: OpenRig) -> None:
    rig = open_rig()
    fill(rig, 3, 1000, "pacs")
    rig.close()
    before = {p: p.stat().st_mtime_ns for p in rig.directory.rglob("*")}
    assert look(rig).sound
    assert {p: p.stat().st_mtime_ns for p in rig.directory.rglob("*")} == before


def test_what_is_not_in_the_index_yet_is_orphaned(rig: Rig) -> None:
    rig.commit_many(3, 1000, "pacs")
    rig.commit(payload(9, LARGE), meta(9, "pacs"))
    report = look(rig)
    assert report.sound
    assert kinds(report) == {"orphaned": 4}
    rig.feed()
    report = look(rig)
    assert kinds(report) == {}
    assert sum(part.records for part in report.segments) == 4


def test_what_was_purged_is_past(rig: Rig) -> None:
    refs = fill(rig, 6, 20_000, "pacs")
    deliver(rig, refs[:2])
    assert rig.index.purge(2e9, 10).count == 2
    (part,) = (part for part in look(rig).segments if part.generation)
    assert (part.records, part.past, part.state) == (4, 2, "in use")
    deliver(rig, refs[2:])
    assert rig.index.purge(2e9, 10).count == 4
    (part,) = (part for part in look(rig).segments if part.generation)
    assert (part.records, part.past, part.state) == (0, 6, "ended")


def test_copies_are_told_from_what_they_were_copied_from(rig: Rig) -> None:
    refs = fill(rig, 3, 2000, "pacs")
    place = rig.relocate(refs[0])
    report = look(rig)
    assert kinds(report) == {}
    assert sum(part.past for part in report.segments) == 1, "the copy is not noted yet"
    rig.index.move([place])
    report = look(rig)
    assert kinds(report) == {}
    assert sum(part.records for part in report.segments) == 3
    rig.index.settle([Outcome(refs[0].id, "pacs", DeliveryState.DELIVERED, 1.0)])
    rig.index.purge(2e9, 10)
    report = look(rig)
    assert kinds(report) == {}
    assert sum(part.past for part in report.segments) == 2


def test_a_file_that_was_never_committed_is_orphaned(rig: Rig) -> None:
    (rig.spool.large_directory / f"{77:016x}.dat").write_bytes(b"arriving")
    report = look(rig)
    assert report.sound
    assert [(f.kind, f.instance) for f in report.findings] == [("orphaned", 77)]


def test_damage_of_what_nobody_needs_is_no_damage(rig: Rig) -> None:
    refs = fill(rig, 3, 20_000, "pacs")
    deliver(rig, refs[:1])
    rig.index.purge(2e9, 10)
    with segment_of(rig, refs[0]).open("r+b") as file:
        file.seek(refs[0].data_offset)
        file.write(b"rot")
    assert kinds(look(rig)) == {}


def test_a_torn_record_that_was_never_acknowledged_is_said_to_be_so(rig: Rig) -> None:
    fill(rig, 1, 1000, "pacs")
    ref = rig.commit(payload(5, 3000), meta(5, "pacs")).kept
    with segment_of(rig, ref).open("r+b") as file:
        file.seek(ref.data_offset + 100)
        file.write(bytes(2000))
    (finding,) = look(rig).findings
    assert (finding.kind, finding.instance) == ("damaged", ref.id)
    assert "perhaps never acknowledged" in finding.what


def test_progress_ends_at_the_whole(rig: Rig) -> None:
    fill(rig, 3, 1000, "pacs")
    rig.commit(payload(9, LARGE), meta(9, "pacs"))
    rig.feed()
    told: list[tuple[int, int]] = []
    verify(
        rig.directory / "spool",
        rig.directory / "index.sqlite",
        lambda done, total: told.append((done, total)),
    )
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > LARGE


def test_an_index_of_another_version_is_not_guessed_at(open_rig: OpenRig) -> None:
    rig = open_rig()
    rig.close()
    path = rig.directory / "index.sqlite"
    index = Index.open(path)
    index._db.run("PRAGMA user_version = 99")
    index.close()
    with pytest.raises(SpoolError, match="schema version 99"):
        look(rig)


def test_the_view_follows_a_gateway_that_starts_meanwhile(open_rig: OpenRig) -> None:
    rig = open_rig()
    fill(rig, 2, 1000, "pacs")
    rig.close()
    view = IndexView(rig.directory / "index.sqlite")
    assert sum(view.generations().values()) == 2
    again = open_rig()
    again.commit(payload(9, 1000), meta(9, "pacs"))
    again.feed()
    assert sum(view.generations().values()) == 3
    view.close()


def test_a_disk_that_cannot_read_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = fill(rig, 3, 1000, "pacs")
    real = recovery.os.pread

    def sick(fd: int, count: int, offset: int) -> bytes:
        if offset <= refs[1].offset < offset + count:
            raise OSError(5, "Input/output error")
        return real(fd, count, offset)

    monkeypatch.setattr(recovery.os, "pread", sick)
    report = look(rig)
    assert [(f.kind, f.instance) for f in report.findings] == [("damaged", refs[1].id)]
    assert "Input/output error" in report.findings[0].what


def test_what_moves_between_two_looks_is_not_said_to_be_damaged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 2, 2000, "pacs")
    old = segment_of(rig, refs[0])
    real_scan, real_check = recovery.scan, recovery.check_record
    calls: list[Path | None] = []

    def scan(*arguments: Any, **more: Any) -> Iterator[object]:
        """Nothing is found at first, as in a segment that is being wiped."""
        return iter(()) if not calls else real_scan(*arguments, **more)

    def check(path: Path | None, *more: Any) -> str:
        calls.append(path)
        if len(calls) == 1:  # the place that was asked about is given up meanwhile
            places = [rig.relocate(ref) for ref in refs]
            rig.index.move(places)
            rig.index.barrier()
            position = rig.index.indexed_position()
            assert rig.spool.segments.recycle(refs[0].generation, wipe=True, indexed=position)
        return real_check(path, *more)

    monkeypatch.setattr(recovery, "scan", scan)
    monkeypatch.setattr(recovery, "check_record", check)
    assert kinds(look(rig)) == {}
    assert calls[0] == old
    assert calls[1] not in (old, None)


def test_what_is_indexed_while_the_rest_is_read_is_not_orphaned(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.commit_many(2, 1000, "pacs")
    tell = _Verification._tell_orphans

    def fed(self: _Verification) -> None:
        assert len(self._orphans) == 2
        rig.feed()
        tell(self)

    monkeypatch.setattr(_Verification, "_tell_orphans", fed)
    report = look(rig)
    assert kinds(report) == {}
    assert sum(part.records for part in report.segments) == 2


@pytest.mark.parametrize("wipe", [False, True])
def test_a_gateway_at_work_is_never_said_to_be_damaged(open_rig: OpenRig, wipe: bool) -> None:
    rig = open_rig(segment_size=128 * KIB, large_instance=32 * KIB, wipe=wipe)
    chance = random.Random(7)
    done = threading.Event()
    reports: list[Report] = []

    def looking() -> None:
        while not done.is_set():
            reports.append(look(rig))

    thread = threading.Thread(target=looking)
    thread.start()
    try:
        for number in range(250):
            size = chance.choice([10, 900, 5000, 20_000, 70_000])
            rig.commit(payload(number, size), meta(number, "pacs"))
            if chance.random() < 0.5:
                rig.feed()
            if chance.random() < 0.3:
                rows = rig.index.instances(Filter(), 1000)
                some = chance.sample(rows, len(rows) * 3 // 4)
                deliver(rig, [row.ref for row in some])
            if chance.random() < 0.3:
                assert rig.step().trouble == ""
    finally:
        done.set()
        thread.join()
    assert len(reports) > 3
    for report in reports:
        assert report.sound, [f for f in report.findings if f.kind in ("damaged", "missing")]
        assert not report.counts["stale"]
    rig.feed()
    assert kinds(look(rig)) == {}


def test_the_view_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index.open(path).close()
    view = IndexView(path)
    with pytest.raises(SpoolError, match="readonly"):
        view._rows("DELETE FROM meta")
    view.close()
