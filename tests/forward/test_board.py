from hypothesis import given
from hypothesis import strategies as st

from router.forward.board import Board
from tests.forward.fakes import CT_PAIR, IMPLICIT, MR, MR_PAIR, waiting

ALL = {CT_PAIR, MR_PAIR}


def board(limit: int = 256, minimum: int = 2, byte_limit: int = 10**9) -> Board:
    return Board(limit=limit, minimum=minimum, byte_limit=byte_limit)


def drain(subject: Board, accepts: set[tuple[str, str]] | None = None) -> list[int]:
    study, numbers = None, []
    while (taken := subject.take(accepts or ALL, study)) is not None:
        item, study = taken
        numbers.append(item.ref.id)
    subject.leave(study)
    return numbers


def test_a_study_is_finished_before_the_next_and_priority_goes_before_all() -> None:
    subject = board()
    subject.add([waiting(1, study="A"), waiting(2, study="B"), waiting(3, study="A")])
    subject.add([waiting(4, study="C", priority=5)])
    assert drain(subject) == [4, 1, 3, 2]


def test_two_workers_take_different_studies_and_then_help_each_other() -> None:
    subject = board()
    subject.add([waiting(n, study="A") for n in (1, 2, 3)] + [waiting(4, study="B")])
    first = subject.take(ALL, None)
    second = subject.take(ALL, None)
    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == ("A", "B")
    third = subject.take(ALL, second[1])
    assert third is not None
    assert third[0].ref.id == 2


def test_only_what_the_association_accepts_is_taken() -> None:
    subject = board()
    subject.add([waiting(1), waiting(2, sop_class=MR), waiting(3, syntax=IMPLICIT)])
    assert drain(subject, {MR_PAIR}) == [2]
    assert subject.first_pair() == CT_PAIR
    assert [item.ref.id for item in subject.withdraw(CT_PAIR)] == [1]
    assert (subject.waiting, len(subject.ids)) == (1, 3)


def test_what_is_put_back_goes_first() -> None:
    subject = board()
    subject.add([waiting(1, study="A"), waiting(2, study="B")])
    taken = subject.take(ALL, None)
    assert taken is not None
    subject.put_back(taken[0])
    subject.leave(taken[1])
    assert drain(subject) == [1, 2]


def test_bytes_bound_it_but_for_a_minimum() -> None:
    subject = board(minimum=2, byte_limit=100)
    assert not subject.add([waiting(n, length=1000) for n in range(5)])
    assert subject.waiting == 2
    assert not subject.hungry


def test_clearing_forgets_what_waits_and_keeps_what_is_in_flight() -> None:
    subject = board()
    subject.add([waiting(1), waiting(2)])
    subject.take(ALL, None)
    assert subject.clear() == 1
    assert list(subject.ids) == [1]
    assert drain(subject) == []


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from("ABC"), st.integers(0, 2), st.booleans()),
        max_size=80,
    ),
    st.data(),
)
def test_nothing_is_taken_twice_or_lost(
    arrivals: list[tuple[int, str, int, bool]], data: st.DataObject
) -> None:
    subject = board(limit=20, byte_limit=12_000)
    active: set[int] = set()
    in_hand: dict[int, object] = {}
    items = {}
    for number, study, priority, is_mr in arrivals:
        item = waiting(
            number, study=study, priority=priority, sop_class=MR if is_mr else CT_PAIR[0]
        )
        before = len(subject.ids)
        subject.add([item])
        if len(subject.ids) > before:
            active.add(number)
            items[number] = item
        choice = data.draw(st.sampled_from("tpsw-"))
        if choice == "t" and (taken := subject.take(ALL, None)) is not None:
            assert taken[0].ref.id not in in_hand
            in_hand[taken[0].ref.id] = taken[0]
        elif choice == "p" and in_hand:
            subject.put_back(items[in_hand.popitem()[0]])
        elif choice == "s" and in_hand:
            done = in_hand.popitem()[0]
            subject.settled([done])
            active.discard(done)
        elif choice == "w":
            withdrawn = [one.ref.id for one in subject.withdraw(MR_PAIR)]
            subject.settled(withdrawn)
            active.difference_update(withdrawn)
        assert set(subject.ids) == active
        assert subject.waiting == len(active) - len(in_hand)
        assert len(active) <= 20
    assert sorted(drain(subject)) == sorted(active - in_hand.keys())
    assert (subject.waiting, subject.first_pair()) == (0, None)
