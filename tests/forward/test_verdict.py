import pytest

from router.forward.verdict import Fate, judge
from router.net.settings import Retry

D, T, P = Fate.DELIVERED, Fate.TEMPORARY, Fate.PERMANENT


@pytest.mark.parametrize(
    ("status", "fate", "strained"),
    [
        (0x0000, D, False),
        (0xB000, D, False),
        (0xB006, D, False),
        (0xB007, D, False),
        (0xB001, T, False),
        (0x0110, T, False),
        (0x0111, P, False),
        (0x0117, P, False),
        (0x0122, P, False),
        (0x0124, P, False),
        (0x0210, T, False),
        (0x0211, P, False),
        (0x0212, P, False),
        (0x0213, T, True),
        (0xA700, T, True),
        (0xA701, T, True),
        (0xA7FF, T, True),
        (0xA800, T, False),
        (0xA900, P, False),
        (0xA9FF, P, False),
        (0xC000, P, False),
        (0xCFFF, P, False),
        (0xFE00, T, False),
        (0xFF00, T, False),
        (0x1234, T, False),
    ],
)
def test_each_row_of_the_table(status: int, fate: Fate, strained: bool) -> None:
    verdict = judge(status, "because")
    assert (verdict.fate, verdict.strained) == (fate, strained)
    if status:
        assert f"{status:04X}" in verdict.reason
        assert "because" in verdict.reason


def test_only_four_statuses_of_all_mean_delivered() -> None:
    delivered = [status for status in range(0x10000) if judge(status).fate is D]
    assert delivered == [0x0000, 0xB000, 0xB006, 0xB007]
    assert judge(0).reason == ""


def test_a_duplicate_may_be_another_object() -> None:
    verdict = judge(0x0111, "have it")
    assert verdict.fate is P
    assert "0111" in verdict.reason
    assert "have it" in verdict.reason
    assert "has an instance of this UID already, which may be this one" in verdict.reason
    said = Retry(statuses={"0111": "delivered"})
    assert judge(0x0111, retry=said).fate is D
