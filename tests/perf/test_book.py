"""The account of its own that a run under fire keeps."""

import pytest
from pydicom.uid import MRImageStorage

from perf import data
from perf.book import Book, Goods
from perf.witness import Seen

GOODS = Goods(data.Kind("book", 12, MRImageStorage, "MR", 8, 8, 16), ("a", "b"))


def send(book: Book, number: int, status: int | None = 0) -> Seen:
    uid, body = GOODS.make(1, number)
    book.send(uid, body, GOODS.destinations)
    if status is not None:
        book.answer(uid, status)
    return Seen.of(uid, body)


def test_instances_differ_in_their_uid_and_in_their_bytes() -> None:
    made = {GOODS.make(sender, number) for sender in (1, 2) for number in (1, 2)}
    assert len({uid for uid, _ in made}) == 4
    assert all(uid.encode() in body for uid, body in made)
    assert len({body.replace(uid.encode(), b"") for uid, body in made}) == 4


def test_what_was_acknowledged_is_owed_until_it_came() -> None:
    book = Book(("a", "b"))
    seen = send(book, 1)
    assert book.owed == {"a": {seen.sop_instance_uid}, "b": {seen.sop_instance_uid}}
    book.receiver("a")(seen)
    assert not book.settled
    book.receiver("b")(seen)
    assert book.settled
    assert not book.faults


def test_what_came_before_its_answer_is_not_owed() -> None:
    book = Book(("a", "b"))
    seen = send(book, 1, None)
    for name in ("a", "b"):
        book.receiver(name)(seen)
    book.answer(seen.sop_instance_uid, 0)
    assert book.settled
    assert book.acknowledged == {seen.sop_instance_uid}


def test_what_was_refused_is_not_owed() -> None:
    book = Book(("a", "b"))
    send(book, 1, 0xA700)
    assert book.settled
    assert book.refused == {"A700": 1}
    assert not book.acknowledged


@pytest.mark.parametrize("digest", ["0" * 64, ""])
def test_other_bytes_are_a_fault(digest: str) -> None:
    book = Book(("a", "b"))
    seen = send(book, 1)
    book.receiver("a")(Seen(seen.sop_instance_uid, digest))
    assert "other bytes" in book.faults[0]


def test_what_nobody_sent_is_a_fault() -> None:
    book = Book(("a", "b"))
    book.receiver("a")(Seen.of("2.25.1", b"data"))
    assert len(book.faults) == 1


def test_the_wrong_destination_is_a_fault() -> None:
    book = Book(("a", "b", "c"))
    book.receiver("c")(send(book, 1))
    assert "was not to go" in book.faults[0]


def test_the_table_counts_what_came_twice_and_what_was_lost() -> None:
    book = Book(("a", "b"))
    first, _ = send(book, 1), send(book, 2)
    for _ in range(2):
        book.receiver("a")(first)
    book.receiver("b")(send(book, 3, None))
    rows = [value for _, value in book.lines()]
    assert rows == [3, 2, 0, 1, 1, 0, 1, 1, 0, 1, 2]


def test_faults_without_end_are_counted() -> None:
    book = Book(("a", "b"))
    for number in range(30):
        book.fault(str(number))
    assert (len(book.faults), book.more_faults) == (20, 10)


def test_what_is_to_be_committed_is_owed_until_it_is() -> None:
    book = Book(("a", "b"), committing="a")
    seen = send(book, 1)
    uid = seen.sop_instance_uid
    for name in ("a", "b"):
        book.receiver(name)(seen)
    assert not book.settled
    assert [name for name in ("a", "b") if book.is_owed(name, uid)] == ["a"]
    book.commit(uid)
    assert not any(book.is_owed(name, uid) for name in ("a", "b"))
    assert book.lines()[-2:] == [("committed by a", 1), ("  acknowledged and not committed", 0)]


def test_what_was_committed_before_its_answer_came_is_not_owed() -> None:
    book = Book(("a", "b"), committing="a")
    seen = send(book, 1, None)
    book.commit(seen.sop_instance_uid)
    book.answer(seen.sop_instance_uid, 0)
    assert not book.uncommitted


def test_what_the_one_that_commits_does_not_get_it_need_not_commit() -> None:
    book = Book(("a", "b", "c"), committing="c")
    send(book, 1)
    assert not book.uncommitted


def test_a_commitment_of_what_nobody_sent_is_a_fault() -> None:
    book = Book(("a", "b"), committing="a")
    book.commit("2.25.1")
    assert "never sent" in book.faults[0]
