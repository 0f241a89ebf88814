"""Queries over an association that a test answers for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import pytest

from router.dimse.command import Command
from router.net.errors import AssociationBroken, AssociationTimeout
from router.query.find import (
    LONGEST_IDENTIFIER,
    PROPOSALS,
    STUDY_ROOT,
    QueryRefused,
    count_instances,
    find,
    list_instances,
)
from router.query.identifier import IMPLICIT, Query, decode, encode
from tests.forward.virtual import run

T = TypeVar("T")
STUDIES = Query("study", {"PatientID": "", "StudyInstanceUID": ""})
KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class Archive:
    """Answers with `matches`, one each `pause` seconds; `heeds` C-CANCEL or not."""

    def __init__(self, matches: Iterable[bytes] = (), status: int = 0, comment: str = "") -> None:
        self.accepted = {PROPOSALS[1]: 3}
        self.matches = list(matches)
        self.last = Command(0x8020, status=status, error_comment=comment)
        self.pause = 0.01
        self.heeds = True
        self.asked: list[bytes] = []
        self.sent = 0
        self.cancelled = self.given_up = False

    def answers(self, identifier: bytes) -> list[bytes]:
        return self.matches

    async def ask(
        self,
        context_id: int,
        field: int,
        sop_class_uid: str,
        identifier: bytes,
        on_match: Callable[[bytes], bool],
        *,
        longest: int,
    ) -> Command:
        assert (context_id, field, sop_class_uid) == (3, 0x0020, STUDY_ROOT)
        assert longest == LONGEST_IDENTIFIER
        self.asked.append(identifier)
        try:
            for match in self.answers(identifier):
                await asyncio.sleep(self.pause)
                self.sent += 1
                if not self.cancelled and not on_match(match):
                    self.cancelled = True
                if self.cancelled and self.heeds:
                    return Command(0x8020, status=0xFE00)
            await asyncio.sleep(self.pause)
        except asyncio.CancelledError:
            self.given_up = True
            raise
        return self.last


def says(**values: str) -> bytes:
    return encode(Query("study", values), IMPLICIT)


def ask(archive: Archive, **options: Any) -> Any:
    return in_time(lambda: find(archive, STUDIES, **options))


def in_time(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    return run(main())


def studies(count: int) -> list[bytes]:
    return [says(PatientID=str(n), StudyInstanceUID=f"1.{n}") for n in range(count)]


def test_no_match_is_an_answer() -> None:
    found = ask(Archive())
    assert (found.matches, found.complete) == ([], True)


def test_the_matches_come_in_order() -> None:
    found = ask(Archive(studies(3)))
    assert [m["PatientID"] for m in found.matches] == [("0",), ("1",), ("2",)]
    assert found.complete


def test_as_many_as_are_wanted_are_all() -> None:
    found = ask(Archive(studies(3)), most=3)
    assert (len(found.matches), found.complete) == (3, True)


@pytest.mark.parametrize("heeds", [True, False])
def test_when_there_are_more_than_wanted_the_archive_is_told_to_stop(heeds: bool) -> None:
    archive = Archive(studies(50))
    archive.heeds = heeds
    found = ask(archive, most=3)
    assert (len(found.matches), found.complete) == (3, False)
    assert archive.cancelled
    assert archive.sent == (4 if heeds else 50)


def test_one_that_goes_on_for_ever_all_the_same_is_given_up() -> None:
    archive = Archive(studies(1) * 100_000)
    archive.heeds, archive.pause = False, 1.0
    found = ask(archive, most=3)
    assert (len(found.matches), found.complete) == (3, False)
    assert archive.given_up
    assert archive.sent < 20


def test_a_query_that_takes_too_long_is_an_error() -> None:
    archive = Archive(studies(1000))
    archive.pause = 1.0
    with pytest.raises(AssociationTimeout, match="not answered within 5 s"):
        ask(archive, seconds=5.0)
    assert archive.given_up


def test_a_refusal_names_status_and_comment() -> None:
    with pytest.raises(QueryRefused, match=r"A700.*\(come back later\)") as caught:
        ask(Archive(status=0xA700, comment="come back later"))
    assert caught.value.status == 0xA700


def test_a_refusal_after_matches_is_one() -> None:
    with pytest.raises(QueryRefused, match="C001"):
        ask(Archive(studies(2), status=0xC001))


def test_an_archive_that_ends_it_by_itself_did_not_tell_all() -> None:
    assert not ask(Archive(studies(2), status=0xFE00)).complete


def test_a_match_that_cannot_be_read_is_no_answer() -> None:
    archive = Archive([*studies(1), b"\x08\x00\x05", *studies(5)])
    with pytest.raises(QueryRefused, match="a match cannot be read"):
        ask(archive)
    assert archive.cancelled


def test_an_archive_without_the_service_is_told_so() -> None:
    archive = Archive()
    archive.accepted = {}
    with pytest.raises(QueryRefused, match="no Study Root queries"):
        ask(archive)
    assert not archive.asked


def test_what_breaks_the_association_is_passed_on() -> None:
    class Falling(Archive):
        async def ask(self, *args: Any, **more: Any) -> Command:
            raise AssociationBroken("closed the connection")

    with pytest.raises(AssociationBroken):
        ask(Falling())


def test_nothing_is_left_behind_by_a_caller_that_gives_up() -> None:
    archive = Archive(studies(1000))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await find(archive, STUDIES)
        assert archive.given_up
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# -- counting ------------------------------------------------------------------------------------


class Catalogue(Archive):
    """An archive of one study; ``told`` is what it says of the number, None for nothing."""

    def __init__(self, series: Mapping[str, int], told: str | None = None) -> None:
        super().__init__()
        self.series = series
        self.told = told

    def answers(self, identifier: bytes) -> list[bytes]:
        given = decode(Query("study", dict.fromkeys(KEYS, "")), identifier, IMPLICIT)
        if given["StudyInstanceUID"] != ("1.2",):
            return []
        if b"IMAGE" in identifier:
            series = given["SeriesInstanceUID"][0]
            return [says(SOPInstanceUID=f"{series}.{n}") for n in range(self.series[series])]
        if b"SERIES" in identifier:
            wanted = given.get("SeriesInstanceUID", ())
            names = [name for name in self.series if not wanted or name in wanted]
            number = {} if self.told is None else {"NumberOfSeriesRelatedInstances": self.told}
            return [says(SeriesInstanceUID=name, **number) for name in names]
        number = {} if self.told is None else {"NumberOfStudyRelatedInstances": self.told}
        return [says(StudyInstanceUID="1.2", **number)]


def count(archive: Archive, study: str = "1.2", series: str = "") -> int | None:
    work: Callable[[], Coroutine[Any, Any, int | None]]
    work = lambda: count_instances(archive, study, series)  # noqa: E731
    return in_time(work)


def test_the_number_is_told_by_the_archive() -> None:
    archive = Catalogue({"1.2.1": 3, "1.2.2": 4}, "7")
    assert count(archive) == 7
    assert len(archive.asked) == 1
    assert count(archive, series="1.2.1") == 7


@pytest.mark.parametrize("told", [None, "", "many", "1\\2", "-3", "99999999999999"])
def test_where_it_tells_none_the_instances_are_counted(told: str | None) -> None:
    archive = Catalogue({"1.2.1": 3, "1.2.2": 4}, told)
    assert count(archive) == 7
    assert count(archive, series="1.2.2") == 4


def test_a_study_that_it_does_not_have_is_none() -> None:
    assert count(Catalogue({"1.2.1": 3}), "1.3") is None
    assert count(Catalogue({"1.2.1": 3}), series="1.2.9") is None


def test_what_it_tells_of_another_study_counts_for_nothing() -> None:
    archive = Archive([says(StudyInstanceUID="1.9", NumberOfStudyRelatedInstances="5")])
    assert count(archive) is None


def test_the_instances_of_a_series_are_listed() -> None:
    archive = Catalogue({"1.2.1": 3, "1.2.2": 4}, None)
    listed = in_time(lambda: list_instances(archive, "1.2", "1.2.1"))
    assert listed == {"1.2.1.0", "1.2.1.1", "1.2.1.2"}
    assert in_time(lambda: list_instances(archive, "1.3", "1.2.1")) == set()


def test_what_it_says_to_be_in_another_series_is_not_listed() -> None:
    where = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1"}
    others = [{"StudyInstanceUID": "1.3"}, {"SeriesInstanceUID": "1.2.2"}]
    answers = [{}, where, *(where | other for other in others)]
    archive = Archive([says(SOPInstanceUID=f"1.2.1.{n}", **one) for n, one in enumerate(answers)])
    listed = in_time(lambda: list_instances(archive, "1.2", "1.2.1"))
    assert listed == {"1.2.1.0", "1.2.1.1"}
