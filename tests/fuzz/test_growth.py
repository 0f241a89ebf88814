"""No cost that grows with the square of what a peer sends."""

import pytest

from tests.fuzz.growth import SHAPES, line_ratio, time_ratio

MOST_LINES = 11.5
"""Of tenfold input: ten, and something for what is done once."""
MOST_TIME = 31.6
"""Half-way, by factors, from ten to the hundred of a square."""
ATTEMPTS = 5


@pytest.mark.parametrize("name", SHAPES)
def test_ten_times_as_much_executes_ten_times_as_many_lines(name: str) -> None:
    assert line_ratio(name) < MOST_LINES


@pytest.mark.timed
@pytest.mark.parametrize("name", SHAPES)
def test_ten_times_as_much_takes_ten_times_as_long(name: str) -> None:
    assert any(time_ratio(name) < MOST_TIME for _ in range(ATTEMPTS))
