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


def test_a_duplicate_of_an_earlier_attempt_was_a_dead_letter() -> None:
    """Regression: it had arrived, and the association broke before the answer."""
    verdict = judge(0x0111, "have it", sent_before=True)
    assert verdict.fate is D
    assert "0111" in verdict.reason
    assert "have it" in verdict.reason
    assert "earlier attempt" in verdict.reason
    assert verdict.presumed
    unsent = judge(0x0111)
    assert unsent.fate is P
    assert "has an instance of this UID already, which may be this one" in unsent.reason
    assert judge(0x0117, sent_before=True).fate is P


def test_what_a_remote_is_said_to_mean_by_a_duplicate_is_not_only_presumed() -> None:
    """Else it were delivered at the first attempt, and a dead letter beside a twin later."""
    said = Retry(statuses={"0111": "delivered"})
    for sent_before in (False, True):
        verdict = judge(0x0111, sent_before=sent_before, retry=said)
        assert (verdict.fate, verdict.presumed) == (D, False)
