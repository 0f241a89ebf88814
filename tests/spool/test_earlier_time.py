"""A segment that was put back from an earlier time, beside a roll that is damaged since."""

from pathlib import Path

import pytest

from tests.spool.conftest import OpenRig
from tests.spool.keeping import deliver
from tests.spool.spool_samples import Rig, check_all, meta, payload, segment_of


def _in_a_second_life(rig: Rig) -> tuple[Path, bytes]:
    """A segment file that was used again, with what waits in it; and its bytes of before."""
    refs = rig.commit_many(5, 5000, "pacs")
    rig.feed()
    path = segment_of(rig, refs[0])
    earlier = path.read_bytes()
    deliver(rig, refs)
    rig.acked.clear()
    rig.spool.segments.seal()
    for _ in range(2):
        rig.step()
    for number in range(8, 30):
        ref = rig.commit(payload(number, 50_000), meta(number, "pacs")).kept
        rig.feed()
        if segment_of(rig, ref) == path:
            return path, earlier
        rig.spool.segments.seal()
    raise AssertionError("it was not used again")


def _damage_entry_of(roll: Path, number: int) -> None:
    data = bytearray(roll.read_bytes())
    at = next(at for at in range(32, len(data), 32) if data[at] == number)
    data[at + 9] ^= 1
    roll.write_bytes(data)


@pytest.mark.parametrize("damage", ["flipped", "lost"])
def test_one_of_an_earlier_time_was_used_again_where_the_roll_was_damaged_since(
    open_rig: OpenRig, damage: str
) -> None:
    """Regression: it was taken for what it says it is, and what came into it was overwritten when
    its latest life was put back."""
    rig = open_rig()
    path, earlier = _in_a_second_life(rig)
    rig.close()
    latest = path.read_bytes()
    path.write_bytes(earlier)
    rigs = [rig, open_rig()]
    rigs[-1].close()
    roll = rig.directory / "spool" / "segments.roll"
    if damage == "flipped":
        _damage_entry_of(roll, int(path.stem))
    else:
        roll.unlink()
    for number in (40, 60):
        again = open_rig()
        rigs.append(again)
        assert any("it is of an earlier time" in note for note in again.spool.notes)
        for each in range(number, number + 12):
            again.step()
            again.commit(payload(each, 50_000), meta(each, "pacs"))
            again.feed()
        again.close()
        assert path.read_bytes() == earlier
    path.write_bytes(latest)
    there = open_rig()
    for each in rigs:
        there.acked.update(each.acked)
    check_all(there)
