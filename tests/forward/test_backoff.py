import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.forward.backoff import ceiling, delay
from router.net.settings import Retry

retries = st.builds(
    Retry,
    first=st.floats(0.001, 3600),
    factor=st.floats(1, 10),
    cap=st.floats(0.001, 86400),
    jitter=st.floats(0, 1),
)
draws = st.floats(0, 1, exclude_max=True)


@given(retries, st.integers(1, 10**6), draws)
def test_a_wait_is_within_the_jitter_below_the_ceiling_and_never_above_the_cap(
    retry: Retry, failures: int, draw: float
) -> None:
    longest = ceiling(retry, failures)
    wait = delay(retry, failures, draw)
    assert longest <= retry.cap
    assert longest * (1 - retry.jitter) - 1e-9 <= wait <= longest


@given(retries, st.integers(1, 10**6))
def test_a_later_wait_is_not_shorter(retry: Retry, failures: int) -> None:
    assert ceiling(retry, failures) <= ceiling(retry, failures + 1) * (1 + 1e-12)


@given(retries)
def test_it_ends_at_the_cap_when_it_grows_at_all(retry: Retry) -> None:
    if retry.factor > 1.01:
        assert ceiling(retry, 10**6) == retry.cap


def test_gentle_steps_differ() -> None:
    retry = Retry(first=1.0, factor=1.25, cap=60, jitter=0)
    assert [delay(retry, n, 0.5) for n in (1, 2, 3)] == [1.0, 1.25, 1.5625]


@pytest.mark.parametrize(("draw", "wait"), [(0.0, 8.0), (0.5, 6.0), (0.999, 4.004)])
def test_the_drawn_share_comes_off_the_wait(draw: float, wait: float) -> None:
    retry = Retry(first=2.0, factor=2.0, cap=300, jitter=0.5)
    assert delay(retry, 3, draw) == pytest.approx(wait)
