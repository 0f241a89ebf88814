"""Lists whose files change: broken ones keep the old values, and are told once."""

import os
from pathlib import Path

import pytest

from router.config.watch import EMPTIED, QUIET, ListWatch, Seen, Source, Values

OLD = frozenset({"a", "b"})


class Place:
    """A list `trial` in a file of lines; `BROKEN` in it is a mistake."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "trial.txt"
        self.reads = 0
        self.write("a\nb\n")
        self.watch = ListWatch({"trial": Source(self.path, self.read)}, {"trial": OLD})
        self.number = 0
        self.now = 1000.0

    def write(self, text: str) -> None:
        self.path.write_text(text)
        # Clocks of file systems are coarse: as if some time had passed.
        self.number = getattr(self, "number", 0) + 1
        os.utime(self.path, ns=(self.number, self.number))

    def read(self) -> tuple[Values, str]:
        self.reads += 1
        text = self.path.read_text()
        if "BROKEN" in text:
            return frozenset(), "it is broken"
        return frozenset(text.split()), ""

    def look(self, after: float = QUIET) -> Seen:
        """What is seen that many seconds later."""
        self.now += after
        return self.watch.look(self.now)

    def settled(self) -> list[Seen]:
        """What is seen until nothing happens any more."""
        return [self.look() for _ in range(3)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    assert place.settled() == [Seen()] * 3
    assert place.reads == 1  # what changed between the loading and the first look is not missed
    return place


def test_a_broken_file_keeps_the_old_values_and_is_told_once(place: Place) -> None:
    place.write("BROKEN")
    first, second, third = place.settled()
    assert first == Seen()
    assert second == Seen({}, {"trial": "it is broken"}, {"trial": "it is broken"})
    assert third == Seen({}, {}, {"trial": "it is broken"})
    assert place.watch.values == {"trial": OLD}
    place.write("STILL BROKEN")
    assert place.settled()[1].failed == {"trial": "it is broken"}


def test_a_file_that_is_gone_keeps_the_old_values_until_it_is_back(place: Place) -> None:
    place.path.unlink()
    looks = place.settled()
    assert [look.failed for look in looks] == [{}, {"trial": "No such file or directory"}, {}]
    assert looks[2].trouble == {"trial": "No such file or directory"}
    place.write("c\n")
    looks = place.settled()
    assert looks[1] == Seen({"trial": frozenset({"c"})})
    assert looks[2] == Seen()


def test_a_file_that_cannot_be_opened_keeps_the_old_values(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    place.write("c")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        assert place.settled()[1].failed == {"trial": "Permission denied"}
    assert place.watch.values == {"trial": OLD}


def test_a_file_that_is_being_written_is_left_until_it_is_quiet(place: Place) -> None:
    for text in ("c\n", "c\nd\n", "c\nd\ne\n"):
        place.write(text)
        assert place.look(60.0) == Seen()
    assert place.reads == 1
    assert place.look().changed == {"trial": frozenset({"c", "d", "e"})}


def test_a_file_that_is_written_while_it_is_read_is_read_again(place: Place) -> None:
    read = place.read

    def meanwhile() -> tuple[Values, str]:
        found = read()
        if place.reads == 2:
            place.write("c\nd\n")
        return found

    place.watch._sources = {"trial": Source(place.path, meanwhile)}
    place.write("c\n")
    assert [look.changed for look in place.settled()] == [{}] * 3
    assert [look.changed for look in place.settled()] == [{"trial": frozenset({"c", "d"})}, {}, {}]


def test_a_list_caught_truncated_by_its_export_took_effect_empty(place: Place) -> None:
    place.write("")
    for _ in range(2):
        assert place.look(QUIET / 2 - 0.01) == Seen()
    place.write("a\nb\nc\n")
    for _ in range(3):
        assert place.look(QUIET / 3 - 0.01) == Seen()
    assert place.look(QUIET / 3 + 0.1).changed == {"trial": frozenset({"a", "b", "c"})}
    assert place.reads == 2


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_list_in_which_nothing_is_left_keeps_its_old_values(place: Place, text: str) -> None:
    place.write(text)
    looks = place.settled()
    assert looks[1] == Seen({}, {"trial": EMPTIED}, {"trial": EMPTIED})
    assert looks[2] == Seen({}, {}, {"trial": EMPTIED})
    assert place.watch.values == {"trial": OLD}
    place.write("a\n")
    assert place.settled()[1] == Seen({"trial": frozenset({"a"})})


def test_a_list_that_was_empty_may_stay_so(place: Place) -> None:
    place.watch = ListWatch({"trial": Source(place.path, place.read)}, {"trial": frozenset()})
    place.write("")
    assert place.settled() == [Seen()] * 3
    place.write("a\n")
    assert place.settled()[1] == Seen({"trial": frozenset({"a"})})


def test_a_file_of_another_time_is_quiet_by_our_clock(place: Place) -> None:
    place.write("c\n")
    os.utime(place.path, (4e9, 4e9))
    assert [look.changed for look in place.settled()] == [{}, {"trial": frozenset({"c"})}, {}]


def test_a_file_is_settled_when_it_was_seen_so_for_some_seconds(place: Place) -> None:
    watch, now = place.watch, place.now
    assert watch.settled(place.path, now)
    place.write("c\n")
    assert not watch.settled(place.path, now)
    later = ListWatch({"trial": Source(place.path, place.read)}, {"trial": OLD}, watch)
    assert not later.settled(place.path, now + QUIET - 0.1)
    assert later.settled(place.path, now + QUIET)
    assert later.look(now + QUIET).changed == {"trial": frozenset({"c"})}
    unknown = ListWatch({"trial": Source(place.path, place.read)}, {"trial": OLD})
    assert not unknown.settled(place.path, now + 1000)


def test_a_file_replaced_by_a_rename_is_seen_although_size_and_time_are_the_same(
    place: Place,
) -> None:
    other = place.path.with_name("new")
    other.write_text("x\ny\n")
    os.utime(other, ns=(place.number, place.number))
    other.replace(place.path)
    assert place.settled()[1].changed == {"trial": frozenset({"x", "y"})}


def test_the_same_values_in_another_order_are_no_change(place: Place) -> None:
    place.write("b\na\na\n")
    assert place.settled() == [Seen()] * 3
    assert place.reads == 2
