"""Above the high mark the oldest settled go until the low one; never what is not settled."""

import pytest

from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.marks import Marks, Run
from router.spool.settings import SpoolSettings
from router.spool.upkeep import Upkeep
from tests.spool.conftest import OpenRig
from tests.spool.keeping import LARGE, T0, deliver, fill
from tests.spool.spool_samples import KIB, Rig, check_all

MARKS = {"high_water": 0.8, "low_water": 0.6, "keep_settled": 1e6}
DISK = 100 * LARGE


@pytest.fixture
def rig(open_rig: OpenRig) -> Rig:
    """A spool of a hundred large instances, at the most."""
    return open_rig(**MARKS, max_size=DISK, spare_segments=3)


def settled(rig: Rig, count: int, at: float = T0) -> list[int]:
    """So many large ones, delivered one after the other, a second each."""
    refs = fill(rig, count, LARGE, "pacs")
    for n, ref in enumerate(refs):
        deliver(rig, [ref], at + n)
    return [ref.id for ref in refs]


def steps(rig: Rig, now: float = T0 + 1000) -> list[Upkeep]:
    """Until there is no more to do at once."""
    found = [rig.step(now)]
    while found[-1].again:
        assert len(found) < 50, "no end of it"
        found.append(rig.step(now))
    return found


def left(rig: Rig) -> list[int]:
    return [row.ref.id for row in rig.index.instances(Filter(), 1000)]


# -- the marks alone -------------------------------------------------------------------------------


def test_nothing_goes_below_the_high_mark_and_all_that_is_above_the_low_one_once_begun() -> None:
    marks = Marks()
    assert marks.excess((0.8, 0.6), 80, 100, 0) == 0
    assert marks.share == 0.8
    assert marks.excess((0.8, 0.6), 81, 100, 0) == 21
    assert marks.excess((0.8, 0.6), 70, 100, 0) == 10, "it goes on below the high mark"
    assert marks.excess((0.8, 0.6), 70, 100, 8) == 2, "what comes free by itself is not purged"
    assert marks.told((0.8, 0.6), 61, 100, idle=False) is None
    assert marks.told((0.8, 0.6), 60, 100, idle=False) == (0, 0, True)
    assert marks.told((0.8, 0.6), 60, 100, idle=False) is None, "once"
    assert marks.excess((0.8, 0.6), 79, 100, 0) == 0


def test_marks_that_are_taken_away_end_a_purge() -> None:
    marks = Marks()
    assert marks.excess((0.8, 0.6), 90, 100, 0) == 30
    assert marks.excess(None, 90, 100, 0) == 0
    assert not marks.running
    assert marks.share is None
    assert marks.excess((0.8, 0.6), 70, 100, 0) == 0


def test_a_file_system_without_a_size_purges_nothing() -> None:
    assert Marks().excess((0.8, 0.6), 0, 0, 0) == 0


def test_the_low_mark_is_nine_tenths_of_the_high_one_unless_given() -> None:
    assert SpoolSettings().marks is None
    assert SpoolSettings(high_water="80%").marks == (0.8, pytest.approx(0.72))
    assert SpoolSettings(high_water="85%", low_water="10%").marks == (0.85, 0.1)


# -- with a spool ----------------------------------------------------------------------------------


def test_the_oldest_settled_go_until_the_low_mark_and_it_is_told_once(rig: Rig) -> None:
    ids = settled(rig, 75)
    assert sum(u.purged for u in steps(rig)) == 0, "below the high mark"
    ids += settled(rig, 7, T0 + 500)
    done = steps(rig)
    gone = sum(u.purged for u in done)
    assert 20 <= gone <= 24
    assert left(rig) == ids[gone:], "the oldest first, no more than it takes"
    assert {u.why for u in done if u.purged} == {"mark"}
    assert done[-1].share == pytest.approx(0.6, abs=0.01)
    (run,) = [u.run for u in done if u.run]
    assert run == Run(gone, gone * LARGE, pytest.approx(0.6, abs=0.01), T0 + gone, True)
    assert steps(rig)[0].run is None
    assert left(rig) == ids[gone:]


def test_no_unsettled_one_goes_for_the_marks(rig: Rig) -> None:
    waiting = fill(rig, 30, LARGE, "pacs")
    dead = fill(rig, 30, LARGE, "pacs")
    rig.index.settle([Outcome(r.id, "pacs", DeliveryState.DEAD, T0) for r in dead])
    held = fill(rig, 20, LARGE)
    kept = settled(rig, 10)
    done = steps(rig)
    assert sum(u.purged for u in done) == 10
    assert left(rig) == [r.id for r in [*waiting, *dead, *held]]
    (run,) = [u.run for u in done if u.run]
    assert (run.count, run.oldest, run.ended) == (10, None, False)
    rig.acked = {k: v for k, v in rig.acked.items() if k not in kept}
    check_all(rig)
    # It is not told again while that lasts; what is settled meanwhile goes at once.
    deliver(rig, waiting[:1], T0 + 2000)
    done = steps(rig, T0 + 2001)
    assert sum(u.purged for u in done) == 1
    assert [u.run for u in done if u.run] == []
    deliver(rig, waiting[1:], T0 + 2002)
    (run,) = [u.run for u in steps(rig, T0 + 2003) if u.run]
    assert run.ended
    assert 50 < len(left(rig)) <= 60


def test_a_rule_s_own_time_gives_way_to_the_marks(rig: Rig) -> None:
    ids = settled(rig, 85)
    rig.index._db.run(f"UPDATE instance SET keep = {30 * 86400} WHERE id <= {ids[9]}")
    assert sum(u.purged for u in steps(rig)) > 20
    assert left(rig)[0] > ids[9]


def test_small_ones_go_with_their_segments_and_not_more_of_them_than_it_takes(
    open_rig: OpenRig,
) -> None:
    rig = open_rig(**MARKS, max_size=40 * 256 * KIB, spare_segments=2)
    refs = fill(rig, 33 * 3, 60 * KIB, "pacs")
    deliver(rig, refs)
    used = rig.spool.segments.total_bytes - rig.spool.segments.spare_bytes
    assert used > 32 * 256 * KIB
    done = steps(rig)
    used = rig.spool.segments.total_bytes - rig.spool.segments.spare_bytes
    assert 22 * 256 * KIB < used <= 24 * 256 * KIB
    assert sum(u.recycled for u in done) <= 12


def test_what_copying_will_free_is_not_purged_meanwhile(open_rig: OpenRig) -> None:
    rig = open_rig(**MARKS, max_size=40 * 256 * KIB, spare_segments=4)
    waiting = []
    for n in range(34):  # of each segment one waits
        one, *others = fill(rig, 8, 24 * KIB, *(["pacs"]))
        waiting.append(one.id)
        deliver(rig, others, T0 + n)
    done = steps(rig)
    purged = sum(u.purged for u in done)
    assert sum(u.moved for u in done) > 0
    assert done[-1].share is not None
    assert done[-1].share <= 0.6
    assert purged < 34 * 7 * 0.6, "copying alone frees seven eighths of a segment"
    assert set(waiting) <= set(left(rig))


def test_by_the_file_system_segments_are_given_back(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig(**MARKS, spare_segments=1)
    capacity = 40 * 256 * KIB

    def free() -> int:
        files = (rig.spool.directory / "segments").iterdir()
        return capacity - sum(path.stat().st_size for path in files)

    monkeypatch.setattr(rig.spool, "capacity_bytes", lambda: capacity)
    monkeypatch.setattr(rig.spool, "free_bytes", free)
    deliver(rig, fill(rig, 33 * 3, 60 * KIB, "pacs"))
    assert free() < 0.2 * capacity
    done = steps(rig)
    assert done[-1].share is not None
    assert done[-1].share <= 0.6
    assert [u.run.ended for u in done if u.run] == [True]
    assert sum(u.purged for u in done) < 33 * 3 * 0.5
    assert free() >= 0.4 * capacity - 2 * 256 * KIB, "others on the disk get what was given up"
