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
    limiter = RateLimited(limit=1, interval=10, max_keys=8, spread=1000)
    for number in range(100):
        for _ in range(3):
            limiter.admit(f"peer {number}", 0.0)
    assert limiter.next_due() is not None
    assert limiter.next_due() <= 10.0
    drained = limiter.drain(10.0)
    assert len(drained) <= 16
    assert sum(count for _, count in drained) == 200


def test_ever_new_addresses_are_bounded_by_their_kind():
    """Regression: each address had its own limit, so that lines grew with the addresses."""
    limiter = RateLimited(limit=5, interval=10, max_keys=16, spread=4)
    admitted = [n for n in range(5000) if limiter.admit(f"artim 10.0.{n >> 8}.{n & 255}", 0.0) == 0]
    assert len(admitted) == 20
    assert limiter.admit("other 10.0.0.1", 0.0) == 0
    drained = dict(limiter.drain(10.0))
    assert len(drained) <= 17
    assert drained["artim, others"] >= 4900
    assert sum(drained.values()) == 4980
    assert limiter.drain(10.0) == []
    assert limiter.admit("artim 10.0.0.1", 10.0) == 0


def test_what_a_kind_held_back_is_told_with_the_key_later():
    limiter = RateLimited(limit=1, interval=10, spread=1)
    assert limiter.admit("artim a", 0.0) == 0
    assert limiter.admit("artim b", 1.0) is None
    assert limiter.admit("artim b", 11.0) == 1
    assert limiter.drain(21.0) == []


def test_a_kind_has_its_own_limit():
    limiter = RateLimited(limit=1, limits={"usual": 3})
    assert [limiter.admit("usual x", 0.0) for _ in range(4)] == [0, 0, 0, None]
    assert [limiter.admit("rare x", 0.0) for _ in range(2)] == [0, None]


def test_limits_are_positive():
    with pytest.raises(ValueError, match="positive"):
        RateLimited(limits={"usual": 0})
    with pytest.raises(ValueError, match="positive"):
        RateLimited(limit=0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["k a", "k b", "k c", "k d", "m a", "n"]), st.floats(0, 5)),
        max_size=200,
    )
)
def test_admitted_and_reported_lines_are_all_that_came(steps):
    limiter = RateLimited(limit=2, interval=7, max_keys=3, spread=2)
    now, admitted, reported = 0.0, 0, 0
    for key, pause in steps:
        now += pause
        before = limiter.admit(key, now)
        if before is not None:
            admitted += 1
            reported += before
    reported += sum(count for _, count in limiter.drain(now + 14))
    assert admitted + reported == len(steps)
