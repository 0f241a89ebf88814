"""A bit that flips in a note of the spool is found, whichever it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.spool import numbers, unread
from router.spool.errors import SpoolError
from router.spool.numbers import Numbers
from router.spool.record import Position
from router.spool.summed import with_sum, without_sum
from router.spool.unread import Notes, Unread
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import check_all, meta, payload, segment_of
from tests.spool.test_lost_by_restart import unreadable

NOTES = Notes(
    {
        "00000003.seg": Unread(Position(17, 40_960), ((0, 8192), (12_288, 2**62))),
        "00000011.seg": Unread(Position(9, 4096), begun=12),
    },
    Position(20, 123_456),
)


def _flipped(path: Path) -> Iterator[str]:
    """Each bit of a file in turn."""
    sound = path.read_bytes()
    for bit in range(len(sound) * 8):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        yield f"bit {bit}: {bytes(data)!r}"
    path.write_bytes(sound)


def test_what_was_not_read_is_never_another(tmp_path: Path) -> None:
    unread.save(tmp_path, NOTES)
    assert unread.load(tmp_path) == NOTES
    found = 0
    for what in _flipped(tmp_path / unread.NAME):
        try:
            assert unread.load(tmp_path) == NOTES, what
        except SpoolError:
            found += 1
    assert found > 8 * 60


def test_the_numbers_are_never_lower(tmp_path: Path) -> None:
    first = Numbers(tmp_path)
    first.reserve(123_456, 789)
    said = (first.number, first.generation)
    found = 0
    for what in _flipped(tmp_path / numbers.NAME):
        again = Numbers(tmp_path)
        again.load()
        assert again.trouble or (again.number, again.generation) == said, what
        found += bool(again.trouble)
    assert found > 8 * 15


def test_notes_of_an_older_version_are_taken(tmp_path: Path) -> None:
    (tmp_path / numbers.NAME).write_text("123456 789\n")
    (tmp_path / unread.NAME).write_text("- 20 5\n00000003.seg 17 40960 0-8192\n")
    again = Numbers(tmp_path)
    again.load()
    assert (again.found, again.number, again.generation) == (True, 123_456, 789)
    assert unread.load(tmp_path).segments == {
        "00000003.seg": Unread(Position(17, 40_960), ((0, 8192),))
    }


@pytest.mark.parametrize("note", ["", "\n", "1 2\n", "= \n", "a = b\n", "ü\n"])
def test_a_note_is_read_as_it_was_written(note: str) -> None:
    assert without_sum(with_sum(note).decode()) == note


def test_what_a_flipped_bit_moved_on_was_lost(open_rig: OpenRig) -> None:
    """Regression: one start could not read a segment, and what the spool noted of it said, by a
    bit, that the index knew more."""
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    path = segment_of(rig, rig.commit(payload(2, 6000), meta(2, "pacs")).kept)
    rig.close()
    with unreadable(path.name):
        open_rig().close()
    note = rig.directory / "spool" / unread.NAME
    lines = note.read_text().split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith(path.name))
    name, generation, offset, *rest = lines[at].split()
    lines[at] = " ".join([name, f"{int(generation) ^ 2}", offset, *rest])
    note.write_text("\n".join(lines))
    with pytest.raises(SpoolError, match="it is damaged; move it away together with"):
        open_rig(start=False)
    note.rename(note.with_suffix(".away"))
    for each in rig.directory.glob("index.sqlite*"):
        each.unlink()
    again = open_rig()
    again.acked.update(rig.acked)
    check_all(again)
