"""No cost that grows with the square of what a peer sends."""

import pytest

from tests.fuzz.growth import SHAPES, ratios

MOST_LINES = 11.5
"""Of tenfold input: ten, and something for what is done once."""
MOST_TIME = 20.0
"""Wide, since machines are busy; a square is a hundred."""
ATTEMPTS = 3


@pytest.mark.parametrize("name", SHAPES)
def test_ten_times_as_much_costs_ten_times_as_much(name: str) -> None:
    shortest = float("inf")
    for _ in range(ATTEMPTS):
        lines, time = ratios(name)
        assert lines < MOST_LINES
        shortest = min(shortest, time)
        if shortest < MOST_TIME:
            break
    assert shortest < MOST_TIME
