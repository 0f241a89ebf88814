"""Whatever becomes of deliveries, what was acknowledged is where it should be in the end.

``DCMROUTER_LIVES`` sets how many spools live and die; 24 by default.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from router.spool.errors import SpoolDamaged
from router.spool.index import Index
from router.spool.index_peers import Peers
from router.spool.index_types import DeliveryState, Waiting
from router.spool.keeper import Keeper
from router.spool.plan import Plan
from router.spool.record import Ref, RouteMeta
from router.spool.upkeep import Upkeep
from tests.spool.index_samples import fill
from tests.spool.lives import Lives
from tests.spool.lives_disk import NAME, IndexDisk, IndexFiles, quiet
from tests.spool.lives_world import Had, Moved, Sent, World
from tests.spool.spool_samples import Loop

WANTED = int(os.environ.get("DCMROUTER_LIVES", "24"))


@pytest.mark.parametrize("seed", range(WANTED))
def test_nothing_is_lost(tmp_path: Path, loop: Loop, seed: int) -> None:
    acknowledged = Lives(tmp_path, loop, seed).play()
    shutil.rmtree(tmp_path)
    assert acknowledged or seed >= 24, "the lives that are always played prove something"
    if not acknowledged:
        pytest.skip("a life so short that nothing was acknowledged proves nothing")


# -- do they find what they should? ----------------------------------------------------------------


def play_until_it_fails(tmp_path: Path, loop: Loop, first: int) -> None:
    """From the seed `first` on, which is not long before one that finds it."""
    for seed in range(first, first + 60):
        Lives(tmp_path / str(seed), loop, seed).play()


def test_hosts_that_change_unnoticed_are_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Peers, "after", lambda *_: 0)
    with pytest.raises(AssertionError, match="is lost"):
        play_until_it_fails(tmp_path, loop, 8)


def test_a_keeper_that_does_not_wait_for_the_index_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Keeper.step

    def step(keeper: Keeper, now: float) -> Upkeep:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeper._index, "barrier", lambda: None)
            return real(keeper, now)

    monkeypatch.setattr(Keeper, "step", step)
    with pytest.raises((SpoolDamaged, AssertionError), match=r"is gone|is missing|is lost"):
        play_until_it_fails(tmp_path, loop, 150)


# -- who misses what -------------------------------------------------------------------------------

EITHER = Plan("failover", ("a", "b")).to_text()


def world_of(*routes: RouteMeta) -> World:
    """One instance was acknowledged at step 10, when all hosts were the first."""
    hosts = dict.fromkeys("abcd", 1)
    return World(step=10, sent=[Sent(10, 7, "1.2", b"x", routes, hosts)], host=dict(hosts))


def had(destination: str, *, step: int = 11, host: int = 1, digest: bytes = b"x") -> Had:
    return Had(step, destination, host, "1.2", digest)


A, B = RouteMeta("a", "r"), RouteMeta("b", "r")
EITHER_A = RouteMeta("a", "r", 0, EITHER)


@pytest.mark.parametrize(
    ("routes", "got", "missing"),
    [
        ((A,), [], True),
        ((A,), [had("a")], False),
        ((A,), [had("b")], True),
        ((A,), [had("a", digest=b"y")], True),
        ((A,), [had("a", step=9)], False),  # what repeats it need not be sent
        ((A,), [had("a", step=9, host=2)], True),  # that host is not there any more
        ((A,), [had("a", host=2)], False),
        ((A, B), [had("a")], True),
        ((A, B), [had("a"), had("b")], False),
        ((EITHER_A,), [had("b")], False),
        ((EITHER_A, B), [had("b")], True),  # one cannot stand for two
        ((EITHER_A, B), [had("b"), had("a")], False),
    ],
)
def test_who_misses_what(routes: tuple[RouteMeta, ...], got: list[Had], missing: bool) -> None:
    world = world_of(*routes)
    world.had += got
    assert bool(world.missing()) == missing


def test_what_was_redirected_before_it_came_is_not_where_it_may_be() -> None:
    world = world_of(A)
    world.had.append(had("b"))
    world.redirected.append((9, "a", "b"))
    assert world.missing()
    world.redirected.append((11, "a", "b"))
    assert not world.missing()


def test_what_was_redirected_goes_to_the_host_of_then_unless_that_has_it() -> None:
    world = world_of(A, B)
    world.had += [had("b", step=11, host=1)]
    world.redirected.append((12, "a", "b"))
    assert not world.missing()
    world.moved.append(Moved(12, 7, "b", 1))
    assert not world.missing()
    world.moved.append(Moved(12, 7, "b", 2))
    assert world.missing()
    world.had.append(had("b", step=13, host=2))
    assert not world.missing()


def test_what_was_redirected_to_one_that_is_still_to_commit_it_goes_nowhere_else() -> None:
    world = world_of(A, B)
    world.had += [had("b", step=11, host=1)]
    world.redirected.append((12, "a", "b"))
    world.moved += [Moved(12, 7, "b", 2), Moved(13, 7, "b", 2, stands=True)]
    assert not world.missing()
    world.moved[1] = Moved(13, 7, "b", 2)
    assert world.missing()


def test_what_has_no_bytes_any_more_is_had_by_nobody() -> None:
    world = world_of(A)
    ref = Ref(7, 1, 0, 64, 1, 0)
    waiting = Waiting(ref, "1.2.840.10008.5.1.4.1.1.2", "1.2", "", "9.1", 1.7e9, "CT1", 0, 0)
    assert world.take_surely("a", waiting, None).state is DeliveryState.DEAD
    assert world.take("a", waiting, None, Random(1)).state is DeliveryState.DEAD
    assert world.had == []
    assert world.missing()


def test_what_an_operator_dropped_is_not_missed() -> None:
    world = world_of(A, B)
    world.dropped |= {(7, "a"), (8, "b")}
    assert world.missing()
    world.dropped.add((7, "b"))
    assert not world.missing()


def test_what_repeats_one_that_was_redirected_and_dropped_is_missed() -> None:
    world = world_of(A, B)
    world.sent.append(replace(world.sent[0], id=8))
    world.had.append(had("a"))
    world.dropped.add((7, "c"))
    assert len(world.missing()) == 2
    world.redirected.append((12, "b", "c"))
    (missed,) = world.missing()
    assert missed.startswith("instance 8 ")
    world.had.append(had("c"))
    assert not world.missing()


def test_a_copy_of_the_world_stays_as_it_is() -> None:
    world = world_of(A)
    copy = world.copy()
    world.change_host("a", Random(1))
    world.acknowledge(8, "1.3", b"", (B,))
    world.had.append(had("a"))
    world.dropped.add((7, "a"))
    world.redirected.append((12, "a", "b"))
    world.moved.append(Moved(12, 7, "b", 1))
    assert copy == world_of(A)


# -- what a cut leaves of an index -----------------------------------------------------------------


def test_a_cut_leaves_a_sound_index_of_some_moment_since_the_last_sync(tmp_path: Path) -> None:
    chance = Random(1)
    home = tmp_path / "home"
    home.mkdir()
    moments: list[tuple[IndexFiles, int, int]] = []
    halfway: list[IndexFiles] = []
    with quiet():
        index = Index.open(home / NAME)
        disk = IndexDisk(home)
        safe = 0
        for number in range(1, 81):
            fill(index, [number], "pacs")
            what = chance.random()
            if what < 0.15:
                index.barrier()
                disk.synced()
                safe = number
            elif what < 0.3:
                disk.write_back(lambda: halfway.append(disk.files()))
                moments.append((halfway.pop(), number, number))
                safe = number
            moments.append((disk.files(), safe, number))
        index.close()
    lost = set()
    for turn, (files, oldest, newest) in enumerate(moments):
        to = tmp_path / str(turn)
        to.mkdir()
        files.cut(chance, to)
        after = Index.open(to / NAME)  # which looks through all of it, and raises IndexDamaged
        assert oldest <= after.last_id() <= newest
        lost.add(newest - after.last_id())
        after.close()
    assert len(lost) > 3, "no cut loses anything"
