"""The text of a plan."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.spool.plan import Plan

_seconds = st.integers(0, 10**6) | st.floats(0, 1e6)
_plans = st.builds(
    Plan,
    mode=st.sampled_from(["one", "failover", "balance", "first_available"]),
    members=st.lists(st.text(max_size=5)).map(tuple),
    after=st.sampled_from(["at-once", "study-complete", "series-complete"]),
    quiet=_seconds,
    expect=st.text(max_size=5),
    wait=_seconds,
    schedule=st.text(max_size=5),
)


@given(_plans)
def test_a_plan_is_read_as_it_was_written(plan: Plan) -> None:
    text = plan.to_text()
    assert Plan.from_text(text) == plan
    assert Plan.from_text(text).to_text() == text


def test_what_is_the_default_is_not_written() -> None:
    assert Plan().to_text() == ""
    assert Plan(quiet=60).to_text() == ""
    assert Plan(after="study-complete", quiet=90.0).to_text() == (
        '{"after":"study-complete","quiet":90}'
    )


def test_one_plan_has_one_text() -> None:
    assert Plan(wait=90).to_text() == Plan(wait=90.0).to_text()
    assert Plan.from_text('{"schedule": "n", "mode": "one"}').to_text() == '{"schedule":"n"}'


def test_keys_of_a_later_version_are_left_out() -> None:
    assert Plan.from_text('{"schedule":"night","colour":"red"}') == Plan(schedule="night")


@pytest.mark.parametrize(
    "value",
    [
        [],
        None,
        {"mode": "both"},
        {"mode": []},
        {"after": "Christmas"},
        {"members": "pacs"},
        {"members": [1]},
        {"quiet": "2m"},
        {"quiet": -1},
        {"quiet": True},
        {"wait": float("inf")},
        {"wait": float("nan")},
        {"wait": 10**400},
        {"schedule": None},
        {"expect": 5},
    ],
)
def test_what_is_not_a_plan_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        Plan.from_text(json.dumps(value))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "nothing"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a plan"):
        Plan.from_text(text)


def test_hastened_waits_for_nothing_and_may_still_go_elsewhere() -> None:
    plan = Plan("failover", ("a", "b"), "series-complete", 5, "pacs", 7, "night")
    assert plan.gated
    assert plan.hastened() == Plan("failover", ("a", "b"))
    assert not plan.hastened().gated
    assert Plan(schedule="night").gated
    assert Plan(after="study-complete").gated
    assert not Plan("balance", ("a", "b")).gated
