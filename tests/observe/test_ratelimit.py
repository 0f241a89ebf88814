import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.observe.ratelimit import RateLimited


def test_so_many_lines_then_the_number_of_the_rest():
    limiter = RateLimited(limit=2, interval=10)
    assert [limiter.admit("a", float(t)) for t in range(5)] == [0, 0, None, None, None]
    assert limiter.admit("b", 5.0) == 0
    assert limiter.admit("a", 10.0) == 3
    assert limiter.admit("a", 10.5) == 0


def test_a_key_that_fell_silent_is_reported_once():
    limiter = RateLimited(limit=1, interval=10)
    for _ in range(4):
        limiter.admit("a", 0.0)
    limiter.admit("b", 1.0)
    assert limiter.next_due() == 10.0
    assert limiter.drain(9.9) == []
    assert limiter.drain(10.0) == [("a", 3)]
    assert limiter.drain(50.0) == []
    assert limiter.next_due() is None


def test_the_number_of_keys_is_bounded_and_nothing_held_back_is_forgotten():
    limiter = RateLimited(limit=1, interval=10, max_keys=8)
    for number in range(100):
        for _ in range(3):
            limiter.admit(f"peer {number}", 0.0)
    assert limiter.next_due() is not None
    assert limiter.next_due() <= 10.0
    drained = limiter.drain(10.0)
    assert len(drained) <= 16
    assert sum(count for _, count in drained) == 200


def test_limits_are_positive():
    with pytest.raises(ValueError, match="positive"):
        RateLimited(limit=0)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 5)), max_size=200))
def test_admitted_and_reported_lines_are_all_that_came(steps):
    limiter = RateLimited(limit=2, interval=7, max_keys=3)
    now, admitted, reported = 0.0, 0, 0
    for key, pause in steps:
        now += pause
        before = limiter.admit(key, now)
        if before is not None:
            admitted += 1
            reported += before
    reported += sum(count for _, count in limiter.drain(now + 7))
    assert admitted + reported == len(steps)
