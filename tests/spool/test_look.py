"""Reading records beside a gateway at work: what is read is what the index meant, or is told."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.spool.index_view import IndexView
from router.spool.layout import RECORD_HEADER_SIZE, RecordHeader
from router.spool.look import Lookout, Pieces, Seen
from router.spool.record import InstanceMeta, Ref
from tests.spool.conftest import OpenRig
from tests.spool.keeping import LARGE, deliver, fill
from tests.spool.spool_samples import KIB, Rig, meta, payload, segment_of

EVER = (0.0, float("inf"))


@pytest.fixture
def look(rig: Rig) -> Iterator[Lookout]:
    view = IndexView(rig.directory / "index.sqlite")
    lookout = Lookout(rig.directory / "spool", view)
    yield lookout
    lookout.close()
    view.close()


def whole(_: Ref, found: InstanceMeta, pieces: Pieces) -> tuple[str, bytes]:
    return found.sop_instance_uid, b"".join(pieces)


def results(lookout: Lookout, limit: int | None = None) -> dict[int, Seen[tuple[str, bytes]]]:
    return {seen.id: seen for seen in lookout.newest(*EVER, limit, whole)}


def damage(rig: Rig, ref: Ref, offset: int, data: bytes) -> None:
    with segment_of(rig, ref).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_it_reads_what_was_committed_newest_first(rig: Rig, look: Lookout) -> None:
    refs = fill(rig, 5, 40 * KIB, "pacs")
    large = rig.commit(payload(9, LARGE), meta(9, "pacs")).kept
    rig.feed()
    found = results(look)
    assert list(found) == sorted([r.id for r in refs] + [large.id], reverse=True)
    for number, (data, described) in rig.acked.items():
        assert found[number] == Seen(number, (described.sop_instance_uid, data))
    assert look.missing == 0


def test_no_more_is_read_than_is_asked_for(rig: Rig, look: Lookout) -> None:
    fill(rig, 1, 60 * KIB, "pacs")
    (seen,) = look.newest(*EVER, None, lambda ref, _, pieces: len(next(pieces)))
    assert seen.result is not None
    assert 0 < seen.result <= 16 * KIB


def test_a_description_longer_than_the_first_read(rig: Rig, look: Lookout) -> None:
    names = [f"destination-{number:04}" for number in range(2000)]
    ref = rig.commit(payload(1, 1000), meta(1, *names)).kept
    rig.feed()
    (seen,) = look.newest(*EVER, None, lambda _, found, p: (found.routes[-1], b"".join(p)))
    assert seen.result == (meta(1, *names).routes[-1], rig.acked[ref.id][0])


def test_only_what_was_received_then_and_the_latest_of_it(rig: Rig, look: Lookout) -> None:
    refs = fill(rig, 9, 1000, "pacs")
    times = {ref.id: rig.acked[ref.id][1].received_at for ref in refs}
    since, until = sorted(times.values())[2], sorted(times.values())[7]
    inside = [n for n, at in sorted(times.items(), reverse=True) if since <= at < until]
    assert len(inside) == 5
    assert [seen.id for seen in look.newest(since, until, None, whole)] == inside
    assert [seen.id for seen in look.newest(since, until, 2, whole)] == inside[:2]


def test_what_was_purged_before_is_counted(rig: Rig, look: Lookout) -> None:
    refs = fill(rig, 6, 1000, "pacs")
    deliver(rig, [refs[0], refs[2], refs[5]])
    assert rig.index.purge(2e9, 10).count == 3
    assert len(results(look)) == 3
    assert look.missing == 3
    look.missing = 0
    deliver(rig, [refs[1], refs[3], refs[4]])
    assert rig.index.purge(2e9, 10).count == 3
    assert results(look) == {}
    assert look.missing == 6


def test_numbers_that_were_never_committed_are_not_taken_for_purged(
    rig: Rig, look: Lookout
) -> None:
    fill(rig, 2, 1000, "pacs")
    for _ in range(4):
        rig.spool.begin(lambda: None).abandon()
    fill(rig, 2, 1000, "pacs")
    assert len(results(look)) == 4
    assert look.missing == 0
    latest = max(what.received_at for _, what in rig.acked.values())
    assert len(list(look.newest(latest, 2e12, None, whole))) == 2
    assert look.missing == 0


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (lambda ref: ref.offset + 20, "no sound record at its place"),  # in the header
        (lambda ref: ref.offset + RECORD_HEADER_SIZE + 3, "damaged description"),
    ],
)
def test_a_damaged_record_is_told_and_its_bytes_are_not_used(
    rig: Rig, look: Lookout, place: Callable[[Ref], int], what: str
) -> None:
    refs = fill(rig, 3, 1000, "pacs")
    damage(rig, refs[1], place(refs[1]), b"\xff\xfe")
    found = results(look)
    assert found[refs[1].id] == Seen(refs[1].id, None, what)
    assert all(found[ref.id].result for ref in (refs[0], refs[2]))


def test_a_record_in_the_place_of_another_is_not_taken_for_it(rig: Rig, look: Lookout) -> None:
    """Sound in itself, with the checksum of its own life; but not what the index means."""
    refs = fill(rig, 2, 1000, "pacs")
    with segment_of(rig, refs[0]).open("rb") as file:
        file.seek(refs[0].offset)
        record = file.read(RECORD_HEADER_SIZE + 500)
    damage(rig, refs[1], refs[1].offset, record)
    assert results(look)[refs[1].id].damage == "no sound record at its place"


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 77},
        {"offset": 8192},
        {"length": 999},
        {"crc": 1},
        {"id": 77, "length": 999},
        {"id": 77, "crc": 1},
        {"id": 77, "flags": 1},
    ],
    ids=str,
)
def test_a_sound_header_that_says_something_else_is_not_believed(
    rig: Rig, look: Lookout, change: dict[str, int]
) -> None:
    (ref,) = fill(rig, 1, 1000, "pacs")
    with segment_of(rig, ref).open("rb") as file:
        file.seek(ref.offset)
        header = RecordHeader.from_bytes(file.read(RECORD_HEADER_SIZE))
    assert header is not None
    damage(rig, ref, ref.offset, header._replace(**change).to_bytes())
    (seen,) = look.newest(*EVER, None, whole)
    assert seen.result is None
    assert seen.damage in (
        "no sound record at its place",
        "the index has other figures of it than its record",
    )


def test_a_file_in_its_next_life_is_opened_anew(rig: Rig, look: Lookout) -> None:
    (ref,) = fill(rig, 1, 1000, "pacs")
    path = segment_of(rig, ref)
    before = look._descriptor(ref.generation, path)
    kept = path.rename(path.with_suffix(".old"))
    path.write_bytes(kept.read_bytes())
    after = look._descriptor(ref.generation + 1, path)
    assert os.fstat(before).st_ino != os.fstat(after).st_ino == path.stat().st_ino


def test_a_missing_segment_and_a_missing_large_file(rig: Rig, look: Lookout) -> None:
    refs = fill(rig, 2, 1000, "pacs")
    large = rig.commit(payload(9, LARGE), meta(9, "pacs")).kept
    rig.feed()
    (rig.directory / "spool" / "large" / f"{large.id:016x}.dat").unlink()
    assert "No such file" in results(look)[large.id].damage
    segment_of(rig, refs[0]).unlink()
    look.close()
    view = IndexView(rig.directory / "index.sqlite")
    found = results(Lookout(rig.directory / "spool", view))
    view.close()
    assert "is missing" in found[refs[0].id].damage


class TestBesideAGateway:
    """What happens between the look at the index and the look at the bytes, or after both."""

    def test_recycled_and_written_over_meanwhile(self, rig: Rig, look: Lookout) -> None:
        refs = fill(rig, 3, 20 * KIB, "pacs")
        results(look)  # it has the file open
        calls: list[int] = []

        def slow(ref: Ref, found: InstanceMeta, pieces: Pieces) -> tuple[str, bytes]:
            calls.append(ref.id)
            if len(calls) == 1:
                deliver(rig, refs)
                rig.acked.clear()
                while rig.keeper.step(2e9).purged:
                    pass
                rig.index.barrier()
            return whole(ref, found, pieces)

        found = {seen.id: seen for seen in look.newest(*EVER, None, slow)}
        assert {seen.id: seen for seen in found.values() if seen.result or seen.damage} == {}
        assert sorted(found) == sorted(ref.id for ref in refs)

    def test_copied_elsewhere_meanwhile(self, rig: Rig, look: Lookout) -> None:
        refs = fill(rig, 3, 20 * KIB, "pacs")
        moved: list[Ref] = []

        def slow(ref: Ref, found: InstanceMeta, pieces: Pieces) -> tuple[str, bytes, Ref]:
            data = b"".join(pieces)
            if not moved:
                moved.append(rig.relocate(refs[1]))
                rig.index.move(moved)
                damage(rig, refs[1], refs[1].offset, bytes(20 * KIB))  # its old place is used again
            return found.sop_instance_uid, data, ref

        found = {seen.id: seen for seen in look.newest(*EVER, None, slow)}
        result = found[refs[1].id].result
        assert result is not None
        assert result[1] == rig.acked[refs[1].id][0]
        assert result[2] != refs[1]

    def test_a_segment_that_began_after_the_first_look(self, rig: Rig, look: Lookout) -> None:
        fill(rig, 1, 1000, "pacs")
        assert len(results(look)) == 1
        fill(rig, 1, 1000, "pacs")
        assert [bool(seen.result) for seen in results(look).values()] == [True, True]


def test_it_leaves_no_file_behind_and_takes_no_lock(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = open_rig()
    fill(rig, 3, 1000, "pacs")
    rig.close()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    view = IndexView(tmp_path / "index.sqlite")
    lookout = Lookout(tmp_path / "spool", view)
    iterator = lookout.newest(*EVER, None, whole)
    next(iterator)
    again = open_rig(start=False)  # a gateway may start meanwhile
    again.close()
    assert len(list(iterator)) == 2
    lookout.close()
    view.close()
    assert set(before) == set(tmp_path.rglob("*"))
