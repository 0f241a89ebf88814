import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.forward.ports import Observer
from router.observe.counters import (
    OTHER,
    STALL_SECONDS,
    UNKNOWN,
    Count,
    Counters,
    Family,
    Histogram,
)


def test_a_value_on_a_bound_belongs_to_its_bucket():
    histogram = Histogram((1.0, 2.0, 4.0))
    for value in (0.0, 1.0, 1.5, 2.0, 4.0, 4.1):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1, 1]
    assert histogram.sum == pytest.approx(12.6)
    assert histogram.max == 4.1
    assert histogram.count == 6


def test_bounds_must_rise():
    with pytest.raises(ValueError, match="rise"):
        Histogram((1.0, 1.0))
    with pytest.raises(ValueError, match="rise"):
        Histogram((2.0, 1.0))


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1))
def test_the_quantile_is_never_below_the_true_one(values, q):
    histogram = Histogram(STALL_SECONDS)
    for value in values:
        histogram.observe(value)
    rank = max(0, -int(-q * len(values) // 1) - 1)
    assert histogram.quantile(q) >= sorted(values)[rank]


def test_the_quantile_of_nothing_is_zero():
    assert Histogram((1.0,)).quantile(0.999) == 0.0


@pytest.mark.timed
def test_observing_costs_next_to_nothing():
    histogram = Histogram(STALL_SECONDS)
    best = min(_timed(histogram) for _ in range(5))
    assert best < 2e-6


def _timed(histogram):
    observe = histogram.observe
    started = time.perf_counter()
    for _ in range(10_000):
        observe(0.003)
    return (time.perf_counter() - started) / 10_000


def test_a_child_is_the_same_object_each_time():
    counters = Counters()
    child = counters.received.of("ROUTER", "ct-room-1")
    child.instances += 1
    assert counters.received.of("ROUTER", "ct-room-1") is child
    assert counters.received.of("ROUTER", UNKNOWN) is not child


def test_a_full_family_puts_the_rest_into_one_series():
    family = Family(("destination",), Count, limit=3)
    for number in range(10):
        family.of(f"d{number}").value += 1
    assert len(family.children) == 4
    assert family.of(OTHER).value == 7
    assert family.of("d0").value == 1


def test_a_wrong_number_of_labels_is_an_error():
    with pytest.raises(ValueError, match="labels"):
        Counters().received.of("ROUTER")


def test_only_arrivals_count_in_the_delivery_time():
    counters = Counters()
    counters.on_delivered("pacs", "delivered", 1.0)
    counters.on_delivered("pacs", "warning", -5.0)  # the wall clock was set back
    counters.on_failed("pacs", "deferred")
    assert counters.delivery_seconds.of("pacs").count == 2
    assert counters.delivery_seconds.of("pacs").sum == 1.0
    assert counters.deliveries.of("pacs", "deferred").value == 1


def test_counters_serve_the_forwarder():
    counters: Observer = Counters()
    counters.on_attempt("pacs")
    counters.on_availability("pacs", up=False)
    assert counters.delivery_attempts.of("pacs").value == 1
    assert counters.destination_changes.of("pacs", "down").value == 1


def test_associations_go_up_and_down():
    child = Counters().associations.of("in", "ROUTER", UNKNOWN)
    child.opened()
    child.opened()
    child.closed()
    assert (child.open, child.total) == (1, 2)
