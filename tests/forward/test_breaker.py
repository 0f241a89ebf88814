from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.forward.breaker import Breaker, BreakerState
from router.net.settings import Retry

RETRY = Retry(first=2.0, factor=2.0, cap=60.0, jitter=0.25)


def breaker() -> Breaker:
    return Breaker(RETRY, Random(1))


def opened(now: float = 0.0) -> Breaker:
    subject = breaker()
    token = subject.attempt(now)
    assert token is not None
    assert subject.failed(token, "connection refused", now)
    return subject


def test_a_failure_to_associate_opens_it_at_once() -> None:
    subject = opened()
    assert not subject.up
    assert subject.reason == "connection refused"
    assert subject.next_probe is not None
    assert 1.5 <= subject.next_probe <= 2.0
    assert subject.attempt(subject.next_probe - 0.001) is None


def test_several_failures_of_one_cause_are_one_step() -> None:
    subject = breaker()
    tokens = [subject.attempt(0.0) for _ in range(4)]
    assert tokens[0] is not None
    assert [subject.failed(token, "refused", 0.0) for token in tokens if token is not None] == [
        True,
        False,
        False,
        False,
    ]
    assert subject.failures == 1


def test_one_probe_at_a_time() -> None:
    subject = opened()
    assert subject.attempt(10.0) is not None
    assert subject.state is BreakerState.PROBING
    assert subject.attempt(10.0) is None
    assert subject.next_probe is None


def test_the_waits_grow_to_the_cap_while_probes_fail() -> None:
    subject = opened()
    waits = []
    for _ in range(12):
        assert subject.next_probe is not None
        now = subject.next_probe
        token = subject.attempt(now)
        assert token is not None
        assert subject.failed(token, "refused", now)
        assert subject.next_probe is not None
        waits.append(subject.next_probe - now)
    assert waits[:4] == sorted(waits[:4])
    assert all(45 <= wait <= 60 for wait in waits[-3:])


def test_a_probe_that_is_answered_closes_it_and_forgets() -> None:
    subject = opened()
    token = subject.attempt(10.0)
    assert token is not None
    assert subject.succeeded(token)
    assert subject.up
    assert (subject.reason, subject.failures, subject.next_probe) == ("", 0, None)


def test_a_late_success_of_an_older_attempt_does_not_close_it() -> None:
    subject = breaker()
    old = subject.attempt(0.0)
    token = subject.attempt(0.0)
    assert old is not None
    assert token is not None
    subject.failed(token, "refused", 0.0)
    assert not subject.succeeded(old)
    assert not subject.holds(old)
    assert not subject.up


@pytest.mark.parametrize("answers", ["xx.xx.xx.", "x.x.x.x."])
def test_failed_messages_with_an_answer_between_do_not_open_it(answers: str) -> None:
    subject = breaker()
    token = subject.attempt(0.0)
    assert token is not None
    for answer in answers:
        if answer == "x":
            assert not subject.struck(token, "timed out", 0.0)
        else:
            subject.succeeded(token)
    assert subject.up


def test_failed_messages_in_a_row_open_it() -> None:
    subject = breaker()
    token = subject.attempt(0.0)
    assert token is not None
    assert [subject.struck(token, "timed out", 0.0) for _ in range(3)] == [False, False, True]


def test_one_failed_message_of_a_probe_opens_it_again() -> None:
    subject = opened()
    token = subject.attempt(10.0)
    assert token is not None
    assert subject.struck(token, "timed out", 10.0)
    assert subject.failures == 2


def test_an_abandoned_probe_may_be_had_again_at_once() -> None:
    subject = opened()
    token = subject.attempt(10.0)
    assert token is not None
    subject.abandon(token)
    assert not subject.up
    assert subject.attempt(10.0) is not None


def test_hastening_brings_the_probe_forward_and_a_reset_closes() -> None:
    subject = opened()
    subject.hasten(0.5)
    assert subject.admits(0.5)
    subject.reset(RETRY)
    assert subject.up


@given(st.lists(st.tuples(st.sampled_from("afrsxoh"), st.floats(0, 100)), max_size=60))
def test_whatever_is_reported_one_probe_and_a_way_out(steps: list[tuple[str, float]]) -> None:
    subject = breaker()
    now = 0.0
    tokens: list[int] = []
    probes: set[int] = set()
    for action, seconds in steps:
        now += seconds
        if action == "a":
            was_open = subject.state is BreakerState.OPEN
            token = subject.attempt(now)
            if token is not None:
                tokens.append(token)
                if was_open:
                    assert token not in probes
                    probes.add(token)
        elif action == "h":
            subject.hasten(now)
        elif tokens:
            token = tokens[int(seconds) % len(tokens)]
            if action == "f":
                subject.failed(token, "f", now)
            elif action == "s":
                subject.struck(token, "s", now)
            elif action == "x":
                subject.abandon(token)
            else:
                subject.succeeded(token)
        assert subject.up == (subject.reason == "")
        if subject.state is BreakerState.OPEN:
            assert subject.next_probe is None or subject.next_probe <= now + RETRY.cap
            assert subject.admits(now + RETRY.cap)
