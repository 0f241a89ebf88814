"""Who still sends to which study."""

import pytest

from router.ingest.studies import OpenStudies
from router.spool.index_database import clean


def test_a_study_is_open_while_any_association_that_sent_to_it_is() -> None:
    studies = OpenStudies()
    studies.sent("in-1", "1.2", "1.2.1")
    studies.sent("in-2", "1.2", "1.2.2")
    studies.ended("in-1")
    assert studies.study_open("1.2")
    assert not studies.series_open("1.2.1")
    assert studies.series_open("1.2.2")
    studies.ended("in-2")
    assert not studies.study_open("1.2")
    assert not studies.series_open("1.2.2")


def test_what_an_association_sends_twice_is_counted_once() -> None:
    studies = OpenStudies()
    for study in ("1.2", "1.3", "1.2", "1.2", "1.3"):
        studies.sent("in-1", study, f"{study}.9")
    studies.ended("in-1")
    assert not studies.study_open("1.2")
    assert not studies.study_open("1.3")


def test_a_study_and_a_series_of_one_uid_are_not_taken_for_each_other() -> None:
    studies = OpenStudies()
    studies.sent("in-1", "1.2", "1.3")
    assert not studies.study_open("1.3")
    assert not studies.series_open("1.2")


def test_a_data_set_without_uids_holds_up_nothing() -> None:
    studies = OpenStudies()
    studies.sent("in-1", "", "")
    assert not studies.study_open("")
    assert not studies.series_open("")


def test_only_an_association_that_sent_something_tells_of_its_end() -> None:
    told: list[int] = []
    studies = OpenStudies(lambda: told.append(1))
    studies.ended("in-1")
    assert not told
    studies.sent("in-1", "1.2", "1.2.1")
    studies.ended("in-1")
    studies.ended("in-1")
    assert told == [1]


@pytest.mark.parametrize("limit", [1, 3])
def test_memory_of_one_association_is_bounded_by_leaving_out_the_eldest(limit: int) -> None:
    studies = OpenStudies(limit=limit)
    studies.sent("in-2", "1.0", "2.0")
    for number in range(10):
        studies.sent("in-1", f"1.{number}", f"2.{number}")
    assert studies.study_open("1.0"), "the other one has sent to it too"
    assert [n for n in range(1, 10) if studies.study_open(f"1.{n}")] == list(range(10 - limit, 10))
    assert [n for n in range(1, 10) if studies.series_open(f"2.{n}")] == list(range(10 - limit, 10))
    studies.ended("in-1")
    studies.ended("in-2")
    assert not any(studies.study_open(f"1.{n}") for n in range(10))


def test_a_study_that_is_sent_to_again_is_the_latest() -> None:
    studies = OpenStudies(limit=2)
    for study in ("1.1", "1.2", "1.1", "1.3"):
        studies.sent("in-1", study, "")
    assert studies.study_open("1.1")
    assert not studies.study_open("1.2")


@pytest.mark.parametrize("uid", ["1.2.3\u00e9\udc80", "1.2\0"])
def test_a_uid_that_the_index_keeps_in_another_form_is_found_open(uid: str) -> None:
    studies = OpenStudies()
    studies.sent("in-1", uid, uid)
    assert studies.study_open(clean(uid))
    assert studies.series_open(clean(uid))
    assert studies.study_open(uid)
    studies.ended("in-1")
    assert not studies.study_open(clean(uid))
