"""After a crash: each acknowledged instance once, damage told and never served."""

import errno
import os
from pathlib import Path

import pytest

from router.spool import recovery
from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.forget import forget
from router.spool.index_types import Disposition, Filter
from router.spool.layout import BLOCK, RECORD_HEADER_SIZE, RecordHeader
from router.spool.record import Position, Ref
from router.spool.recovery import Damage, Recovered
from router.spool.segment import Segment
from router.spool.writer import large_path
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload, segment_of

LARGE = 300 * KIB


def copied(path: Path, to: Path) -> Segment:
    """A segment of its own for `scan`, of 8 blocks."""
    to.write_bytes(path.read_bytes()[: 8 * BLOCK])
    return Segment(to, 1, to.stat().st_size, recovery.generation_of(path))


def found_in(segment: Segment, start: int = 0) -> list[Recovered | Damage]:
    return list(recovery.scan(segment, start, segment.path.parent))


def served(found: list[Recovered | Damage]) -> list[int]:
    """Ids of the instances that would be served."""
    return [f.ref.id for f in found if isinstance(f, Recovered) and not f.damage]


@pytest.fixture
def three(rig: Rig) -> tuple[Rig, list[Ref], Path]:
    """Three small records and their segment."""
    refs = [rig.commit(payload(n, 700), meta(n, "pacs")).kept for n in range(3)]
    return rig, refs, segment_of(rig, refs[0])


# -- torn and flipped ------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", ["cut", "zeros", "old"])
def test_a_tail_torn_at_every_byte(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path, rest: str
) -> None:
    _, refs, path = three
    raw = path.read_bytes()[: 8 * BLOCK]
    last = refs[2]
    end = last.data_offset + last.length
    segment = copied(path, tmp_path / "torn.seg")
    for at in range(last.offset, end):
        torn = raw[:at]
        if rest == "zeros":
            torn += bytes(len(raw) - at)
        elif rest == "old":  # what an earlier life left behind, of the same form
            torn += bytes(b ^ 0x55 for b in raw[at:end]) + raw[end:]
        segment.path.write_bytes(torn)
        segment.size = len(torn)
        found = found_in(segment)
        assert served(found) == [refs[0].id, refs[1].id], at
        assert len(found) <= 3
        for bad in found[2:]:
            what = bad.what if isinstance(bad, Damage) else bad.damage
            assert what, at


def test_a_record_cut_at_its_very_end_is_whole(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path
) -> None:
    _, refs, path = three
    segment = copied(path, tmp_path / "cut.seg")
    end = refs[2].data_offset + refs[2].length
    segment.path.write_bytes(path.read_bytes()[:end] + bytes(segment.size - end))
    assert served(found_in(segment)) == [ref.id for ref in refs]


def test_a_bit_flipped_in_every_byte_of_a_record_in_the_middle(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path
) -> None:
    _, refs, path = three
    raw = bytearray(path.read_bytes())
    segment = copied(path, tmp_path / "flipped.seg")
    middle = refs[1]
    description = middle.data_offset - len(meta(1, "pacs").to_bytes())
    for at in range(middle.offset, middle.data_offset + middle.length):
        bit = 1 << (at % 8)
        with segment.path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([raw[at] ^ bit]))
        found = found_in(segment)
        with segment.path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([raw[at]]))
        assert served(found) == [refs[0].id, refs[2].id], at
        (bad,) = [f for f in found if isinstance(f, Damage) or f.damage]
        assert isinstance(bad, Recovered)
        if bad.unsure:
            assert at < description
            assert bad.ref == middle
        elif at < middle.data_offset:
            assert bad.damage == "damaged description"
        else:
            assert at >= middle.data_offset
            assert "CRC-32" in bad.damage


def test_a_bit_flipped_in_any_header_loses_nothing_though_nothing_lies_behind(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path
) -> None:
    _, refs, path = three
    last = refs[2]
    segment = copied(path, tmp_path / "flipped.seg")
    raw = bytearray(segment.path.read_bytes())
    for bit in range(8 * RECORD_HEADER_SIZE):
        raw[last.offset + bit // 8] ^= 1 << bit % 8
        segment.path.write_bytes(raw)
        raw[last.offset + bit // 8] ^= 1 << bit % 8
        *_, found = found_in(segment)
        assert isinstance(found, Recovered), bit
        assert (found.ref, found.meta) == (last, meta(2, "pacs")), bit
        assert found.damage, bit
        assert found.unsure, bit


@pytest.mark.parametrize("size", [700, LARGE])
def test_what_has_a_bit_flipped_in_its_header_goes_where_it_was_to_go(
    open_rig: OpenRig, size: int
) -> None:
    rig = open_rig()
    data = payload(1, size)
    ref = rig.commit(data, meta(1, "pacs")).kept
    path = segment_of(rig, ref)
    rig.close()  # the index was not told yet
    raw = bytearray(path.read_bytes())
    raw[ref.offset + 20] ^= 8
    path.write_bytes(raw)
    again = open_rig()
    assert again.keeper.sweep() == 0
    (waiting,) = again.index.lease("pacs", 10, 2e9, ())
    assert again.read(waiting.ref) == data
    assert f"instance {ref.id}: no sound header" in again.report.damage[0]


def test_what_an_earlier_life_left_is_never_a_record(rig: Rig, open_rig: OpenRig) -> None:
    first = rig.commit_many(20, 3000)
    rig.feed()
    rig.index.discard_held(Filter(), "test", at=1.0)
    rig.spool.segments.seal()
    path = segment_of(rig, first[0])
    rig.step()
    assert rig.spool.segments.sealed() == []
    rig.acked.clear()
    again = rig.commit_many(5, 3000, "pacs")
    assert segment_of(rig, again[0]) == path, "the segment was not used again"
    rig.close()
    (rig.directory / "index.sqlite").unlink()
    restarted = open_rig()
    assert restarted.report.added == 5
    assert restarted.report.damage == []


def test_old_records_do_not_return_after_a_lost_index_and_a_recycled_segment(
    open_rig: OpenRig,
) -> None:
    # The latest generation is recycled, the index is lost: the next life must not be of that
    # generation again, or the old records beyond its end would pass for its own.
    rig = open_rig()
    keep = rig.commit(payload(0, 100), meta(0, "pacs")).kept
    rig.spool.segments.seal()
    gone = [rig.commit(payload(n, 3000), meta(n, disposition="discard")).kept for n in range(1, 21)]
    rig.feed()
    rig.spool.segments.seal()
    rig.step()
    assert {s.generation for s in rig.spool.segments.sealed()} == {keep.generation}
    assert rig.index.instance(gone[5].id) is None
    rig.close()
    for _ in range(2):
        for path in rig.directory.glob("index.sqlite*"):
            path.unlink()
        rig = open_rig()
        ref = rig.commit(payload(50, 100), meta(50, "pacs")).kept
        assert ref.generation > gone[0].generation
        rig.feed()
        rig.close()
    rig = open_rig()
    assert rig.report.added == 0
    assert rig.index.account().received == 3
    assert rig.report.damage == []


def test_damage_between_records_and_a_sound_tail(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path
) -> None:
    _, refs, path = three
    segment = copied(path, tmp_path / "gap.seg")
    with segment.path.open("r+b") as file:
        file.seek(refs[0].offset)
        file.write(bytes(2 * BLOCK))
    found = found_in(segment)
    assert served(found) == [refs[2].id]
    assert isinstance(found[0], Damage)
    assert (found[0].offset, found[0].length) == (refs[0].offset, 2 * BLOCK)


def test_a_length_beyond_the_segment_is_not_believed(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path
) -> None:
    _, refs, path = three
    segment = copied(path, tmp_path / "long.seg")
    long = RecordHeader(0, refs[1].generation, refs[1].offset, 9, 1 << 40, 0, 10, 0)
    with segment.path.open("r+b") as file:
        file.seek(refs[1].offset)
        file.write(long.to_bytes())
    assert served(found_in(segment)) == [refs[0].id, refs[2].id]


def test_what_the_disk_cannot_read_is_damage(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, refs, path = three
    segment = copied(path, tmp_path / "sick.seg")
    real = os.pread

    def sick(bad: int):
        def pread(fd: int, count: int, offset: int) -> bytes:
            if offset < bad + BLOCK and bad < offset + count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, count, offset)

        return pread

    for n, ref in enumerate(refs):
        with monkeypatch.context() as patch:
            patch.setattr(recovery.os, "pread", sick(ref.offset))
            found = found_in(segment)
        assert served(found) == [r.id for r in refs if r is not ref], n
        (damage,) = [f for f in found if isinstance(f, Damage)]
        assert damage.offset == ref.offset
        assert "Input/output error" in damage.what
    with monkeypatch.context() as patch:  # the file of its own is another matter
        patch.setattr(recovery.os, "pread", sick(segment.size + BLOCK))
        assert served(found_in(segment)) == [ref.id for ref in refs]


def test_a_description_of_no_known_form_is_damage(rig: Rig) -> None:
    good = rig.commit(b"x", meta(1)).kept
    writer = rig.begin()
    told: list[object] = []
    writer.commit(b'{"a": 1}', lambda *what: told.append(what))
    rig.loop.run_until(lambda: told)
    after = rig.commit(b"y", meta(2)).kept
    rig.spool.segments.seal()
    found = list(rig.spool.recover(None))
    assert served(found) == [good.id, after.id]
    assert isinstance(found[1], Recovered)
    assert "not an instance description" in found[1].damage


@pytest.mark.parametrize("how", ["missing", "short", "flipped"])
def test_a_damaged_large_file_is_held_and_told(open_rig: OpenRig, how: str) -> None:
    rig = open_rig()
    ref = rig.commit(payload(1, LARGE), meta(1, "pacs")).kept
    rig.close()
    path = rig.directory / "spool" / "large" / f"{ref.id:016x}.dat"
    if how == "missing":
        path.unlink()
    elif how == "short":
        os.truncate(path, LARGE - 1)
    else:
        raw = bytearray(path.read_bytes())
        raw[5] ^= 1
        path.write_bytes(raw)
    again = open_rig()
    assert len(again.report.damage) == 1
    assert f"instance {ref.id}" in again.report.damage[0]
    row = again.row(ref.id)
    assert row.disposition is Disposition.QUARANTINED
    assert row.meta.routes == ()
    assert "damaged in the spool" in row.meta.reason
    with pytest.raises(SpoolDamaged):
        again.read(row.ref)


def test_a_missing_segment_is_told_when_its_instances_are_read(open_rig: OpenRig) -> None:
    rig = open_rig()
    lost = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    rig.spool.segments.seal()
    kept = rig.commit(payload(2, 1000), meta(2, "pacs")).kept
    rig.feed()
    rig.close()
    path = segment_of(rig, lost)
    path.unlink()
    again = open_rig()
    assert again.read(again.row(kept.id).ref) == payload(2, 1000)
    with pytest.raises(SpoolError, match="is gone, or is in a file that is missing") as caught:
        again.read(again.row(lost.id).ref)
    assert not isinstance(caught.value, SpoolDamaged), "it may be brought back"
    new = again.commit(payload(3, 1000), meta(3)).kept
    assert new.generation > kept.generation
    again.close()
    forget(again.spool.directory, path.name)
    last = open_rig()
    with pytest.raises(SpoolDamaged, match="is gone"):
        last.read(last.row(lost.id).ref)


def test_a_damaged_segment_header_costs_nothing(open_rig: OpenRig) -> None:
    rig = open_rig()
    refs = rig.commit_many(4, 1000, "pacs")
    rig.close()
    with segment_of(rig, refs[0]).open("r+b") as file:
        file.write(bytes(64))
    again = open_rig()
    assert again.report.added == 4
    assert "damaged header" in again.spool.notes[0]
    again.acked = rig.acked
    check_all(again)


def test_a_scan_that_cannot_sync_is_an_error(
    three: tuple[Rig, list[Ref], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = copied(three[2], tmp_path / "x.seg")
    segment.path.unlink()
    with pytest.raises(SpoolError, match="reading segment"):
        found_in(segment)


def test_a_scan_begins_where_it_is_told(three: tuple[Rig, list[Ref], Path], tmp_path: Path) -> None:
    rig, refs, path = three
    segment = copied(path, tmp_path / "s.seg")
    assert served(found_in(segment, refs[1].offset)) == [refs[1].id, refs[2].id]
    assert served(found_in(segment, refs[0].data_offset)) == [refs[1].id, refs[2].id]
    rig.spool.segments.seal()
    end = Position(refs[2].generation, refs[2].offset + BLOCK)
    assert list(rig.spool.recover(end)) == []
    assert list(rig.spool.recover(Position(refs[2].generation + 1, 0))) == []


# -- files that stand in the way of a start --------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "sync"])
def test_a_large_file_in_the_way_does_not_keep_the_gateway_from_starting(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    rig = open_rig()
    bad = rig.commit(payload(1, LARGE), meta(1, "pacs")).kept
    good = rig.commit(payload(2, LARGE), meta(2, "pacs")).kept
    rig.close()
    path = large_path(rig.spool.large_directory, bad.id)
    fail_for(monkeypatch, call, path)
    again = open_rig()
    assert [line for line in again.report.damage if path.name in line]
    # Its bytes may be sound: whoever reads them for a destination finds out.
    assert again.row(bad.id).disposition is Disposition.ROUTED
    assert again.read(again.row(good.id).ref) == payload(2, LARGE)
    assert path.exists()


def test_a_segment_that_cannot_be_opened_is_told_and_left_alone(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    bad = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    rig.spool.segments.seal()
    good = rig.commit(payload(2, 1000), meta(2, "pacs")).kept
    path = segment_of(rig, bad)
    rig.close()
    before = path.read_bytes()
    fail_for(monkeypatch, "open", path)
    again = open_rig()
    assert [line for line in again.report.damage if path.name in line]
    assert again.spool.log_damaged
    assert again.read(again.row(good.id).ref) == payload(2, 1000)
    for _ in range(3):
        assert again.step().trouble == ""
    monkeypatch.undo()
    assert path.read_bytes() == before, "records that nobody has read were given up"


def test_a_segment_that_cannot_be_synced_is_told_and_read(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    ref = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    path = segment_of(rig, ref)
    rig.close()
    fail_for(monkeypatch, "sync", path)
    again = open_rig()
    assert [line for line in again.report.damage if f"{path.name}" in line and "synced" in line]
    assert again.read(again.row(ref.id).ref) == payload(1, 1000)


def test_a_directory_among_the_segments_does_not_keep_the_gateway_from_starting(
    open_rig: OpenRig,
) -> None:
    rig = open_rig()
    ref = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    rig.close()
    (rig.spool.directory / "segments" / "00000900.seg").mkdir()
    again = open_rig()
    assert any("00000900.seg" in note for note in again.spool.notes)
    assert again.spool.log_damaged
    assert again.read(again.row(ref.id).ref) == payload(1, 1000)


def fail_for(monkeypatch: pytest.MonkeyPatch, call: str, path: Path) -> None:
    """Opening or syncing this file fails in recovery."""
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    opening, syncing = os.open, recovery.system.sync_data

    def failing_open(where: Path, *arguments: int) -> int:
        if where == path:
            raise error
        return opening(where, *arguments)

    def failing_sync(fd: int) -> None:
        if os.fstat(fd).st_ino == path.stat().st_ino:
            raise error
        syncing(fd)

    if call == "open":
        monkeypatch.setattr(recovery.os, "open", failing_open)
    else:
        monkeypatch.setattr(recovery.system, "sync_data", failing_sync)
