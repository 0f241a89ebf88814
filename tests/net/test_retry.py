"""What people may write under `retry`, and what a status means by it."""

import pytest
from pydantic import ValidationError

from router.net.retry import Retry, canonical_status


@pytest.mark.parametrize(
    "text", ["", "A7", "A70", "A7xxx", "Axx1", "xxxx", "G700", "A700H", "0xA700", "1234567", "A7x"]
)
def test_what_is_no_status(text: str) -> None:
    with pytest.raises(ValueError, match="is no status of a C-STORE-RSP") as caught:
        canonical_status(text)
    assert "A7xx" in caught.value.args[1]


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        ({"0000": "permanent"}, "0000 is success"),
        ({"a7XX": "temporary", "A7xx": "permanent"}, "A7xx stands here twice"),
        ({"A700": "delivered"}, "A700 does not say that the destination has the instance"),
        ({"Cxxx": "delivered"}, "Cxxx does not say"),
        ({"0xxx": "delivered"}, "0xxx does not say"),
        ({"011x": "delivered"}, "011x does not say"),
        ({"A700": "never"}, "Input should be 'temporary', 'permanent' or 'delivered'"),
    ],
)
def test_what_a_table_may_not_say(statuses: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Retry(statuses=statuses)


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (0xA700, "temporary"),
        (0xA701, None),
        (0xC123, "temporary"),
        (0xC12F, "temporary"),
        (0xC1FF, "permanent"),
        (0xCFFF, None),
        (0x0110, "permanent"),
        (0x0000, None),
        (0xB006, "permanent"),
    ],
)
def test_the_line_that_says_most_counts(status: int, fate: str | None) -> None:
    table = {"c1xx": "permanent", "C12x": "temporary", "a700": "temporary", "0110": "permanent"}
    retry = Retry(statuses={**table, "B006": "permanent", "0xxx": "temporary"})
    assert retry.fate_of(status) == fate


def test_what_may_be_taken_for_delivered() -> None:
    statuses = dict.fromkeys(("0001", "0107", "0111", "0116", "Bxxx", "b0xx"), "delivered")
    assert set(Retry(statuses=statuses).statuses.values()) == {"delivered"}
