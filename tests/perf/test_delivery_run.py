"""The run through a faulty network: that it runs, and that its judgement can go against us."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.uid import MRImageStorage

from perf.contenders import program
from perf.delivery import Conversation, Mischief, Result, Run, Said, Verdict, judge
from perf.proxy import THROUGH, FaultProxy, Record


@pytest.mark.interop
@pytest.mark.skipif(not program("storescp"), reason="needs DCMTK")
def test_a_small_run_holds(tmp_path: Path) -> None:
    result = asyncio.run(Run(tmp_path, 200, 16, seed=3).run())
    assert not result.troubles(16)
    assert result.sink_stores == 200
    assert [verdict.arrived for verdict in result.verdicts] == [200, 200]


def mischief(*said: Said, passed: int) -> Mischief:
    """One conversation, whose answers are 100 bytes each; ``passed`` of them reached the sender."""
    found = Mischief(1, 1000, random.Random(1))
    found.proxy = FaultProxy(1, found)
    ends = [100 * (number + 1) for number in range(len(said))]
    found.proxy.records.append(
        Record(0.0, said=["fault"], to_sender=100 * passed, answer_ends=ends)
    )
    found.conversations.append(Conversation("cut in an answer (fin)", THROUGH, list(said)))
    return found


@pytest.mark.parametrize(
    ("passed", "explained"),
    [(0, True), (1, False), (2, False)],
)
def test_who_is_sent_again_must_not_have_been_heard(
    tmp_path: Path, passed: int, explained: bool
) -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, "2.25.7"
    dcmwrite(tmp_path / "any", ds, implicit_vr=True, little_endian=True)
    answers = (Said(1.0, "2.25.7", 0, 0), Said(2.0, "2.25.7", 0, 1))
    found = judge("peer", mischief(*answers, passed=passed), {"2.25.7", "2.25.8"}, tmp_path)
    assert (found.twice, found.arrived, found.missing) == (1, 1, 1)
    assert (not found.unexplained) == explained


def result(**changes: object) -> Result:
    fine = Verdict("peer", 10, 12, Counter(), 8, 0, 1, [], 1)
    values: dict[str, object] = {
        "instances": 8,
        "seconds": 1.0,
        "verdicts": [fine],
        "retried": 0,
        "account": {"balanced": True, "differences": {}},
        "sink_stores": 8,
        "sink_instances": 8,
        "sink_after": 0.1,
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sink_stores": 9}, "the sink has 8 in 9 stores"),
        ({"sink_after": 6.0}, "had to wait"),
        ({"account": {"balanced": False, "differences": {"pacs": 1}}}, "does not balance"),
        ({"verdicts": []}, "fewer than 10 faults"),
        (
            {"verdicts": [Verdict("p", 10, 12, Counter(), 7, 1, 0, ["2.25.7"], 2)]},
            "p: 1 of 8 did not arrive",
        ),
    ],
)
def test_what_went_wrong_is_said(changes: dict[str, object], says: str) -> None:
    assert not result().troubles(10)
    assert any(says in trouble for trouble in result(**changes).troubles(10))


def test_mischief_ends() -> None:
    found = Mischief(1, 1000, random.Random(1))
    found.proxy = FaultProxy(1, found)
    assert found[0].interferes
    found.proxy.records.append(Record(time.monotonic(), said=["fault"]))
    assert not found[1].interferes
    assert [conversation.name for conversation in found.conversations][1] == "through"
