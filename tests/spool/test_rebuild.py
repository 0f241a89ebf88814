"""The index beside the log: whatever its age, each instance is in it once."""

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.spool import system
from router.spool.index import Index
from router.spool.index_hours import account_since
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.record import Position, Ref
from tests.spool.conftest import OpenRig
from tests.spool.index_copies import copy_index
from tests.spool.spool_samples import KIB, Loop, Rig, check_all, meta, payload, segment_of
from tests.spool.spool_samples import settings as small
from tests.spool.test_lost_by_restart import unreadable

LARGE = 300 * KIB


# -- the index beside the log ----------------------------------------------------------------------


def forget_index(rig: Rig, saved: Path | None) -> None:
    """The index is lost, or replaced by a copy of earlier."""
    for path in rig.directory.glob("index.sqlite*"):
        path.unlink()
    if saved is not None:
        shutil.copyfile(saved, rig.directory / "index.sqlite")


def save_index(rig: Rig) -> Path:
    """A copy of the index as it is now."""
    to = rig.directory / "yesterday.sqlite"
    to.unlink(missing_ok=True)
    copy_index(rig.directory / "index.sqlite", to)
    return to


@pytest.mark.parametrize("which", ["none", "yesterday", "newest", "behind"])
def test_each_instance_is_there_exactly_once(open_rig: OpenRig, which: str) -> None:
    rig = open_rig()
    for n in range(6):
        rig.commit(payload(n, (1000, LARGE, 70_000)[n % 3]), meta(n, "pacs", "vna"))
    rig.feed()
    saved = save_index(rig)
    for n in range(6, 14):
        rig.commit(payload(n, (1000, LARGE, 70_000)[n % 3]), meta(n, "pacs"))
    if which != "behind":
        rig.feed()
    rig.close()
    if which in ("none", "yesterday"):
        forget_index(rig, saved if which == "yesterday" else None)
    again = open_rig()
    assert again.report.damage == []
    assert again.report.added == {"none": 14, "yesterday": 8, "newest": 0, "behind": 8}[which]
    again.acked = rig.acked
    check_all(again)
    account = again.index.account(audit=True)
    assert (account.received, account.routed) == (14, 14)
    assert account.destinations["pacs"].waiting == 14
    assert account.destinations["vna"].waiting == 6
    assert again.keeper.sweep() == 0
    again.close()
    third = open_rig()
    assert third.report.added == 0
    third.acked = rig.acked
    check_all(third)


def test_rebuilding_again_and_again_changes_nothing(open_rig: OpenRig) -> None:
    rig = open_rig()
    rig.commit_many(10, 5000, "pacs")
    rig.close()
    for _ in range(3):
        rig = open_rig()
        rig.close()
    rig = open_rig()
    assert rig.index.account(audit=True).destinations["pacs"].waiting == 10


def test_an_account_of_hours_says_that_the_index_was_made_anew(open_rig: OpenRig) -> None:
    """What was delivered and purged before is in no count, and the balance alone does not show."""
    rig = open_rig()
    rig.commit(payload(1, 1000), meta(1, "pacs"))
    rig.feed()
    rig.close()
    path = rig.directory / "index.sqlite"
    assert account_since(path, 0.0).known_from is None
    forget_index(rig, None)
    again = open_rig()
    again.close()
    known_from = account_since(path, 0.0).known_from
    assert known_from is not None
    assert 0 < known_from - time.time() <= 3600


def test_that_the_index_was_made_anew_is_known_though_a_start_was_broken_off(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As late as can be: it has all of it, and no position yet."""
    rig = open_rig()
    rig.commit(payload(1, 1000), meta(1, "pacs"))
    rig.feed()
    rig.close()
    path = rig.directory / "index.sqlite"
    forget_index(rig, None)
    broken = open_rig(start=False)
    with monkeypatch.context() as patch:
        patch.setattr(Index, "begin_hours", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            broken.start()
    assert (broken.index.indexed_position(), broken.index.known([1])) == (Position(0, 0), {1})
    broken.close()
    again = open_rig()
    assert again.report.anew == 1
    again.close()
    assert account_since(path, 0.0).known_from is not None


@pytest.mark.parametrize("lost", [True, False])
def test_up_to_which_number_it_was_made_anew_is_known_from_then_on(
    open_rig: OpenRig, *, lost: bool
) -> None:
    """What came last of a UID may have been given up by then, and its segment be used again."""
    rig = open_rig()
    last = rig.commit_many(3, 100)[-1].id
    rig.feed()
    rig.close()
    if lost:
        forget_index(rig, None)
    for _ in range(2):
        again = open_rig()
        new = again.commit(payload(9, 1000), meta(9, "pacs")).kept
        again.feed()
        assert last * lost <= again.index.made_anew() < new.id
        assert bool(again.index.made_anew()) is lost
        again.close()


def test_that_the_index_was_made_anew_is_known_though_nothing_could_be_read_at_first(
    open_rig: OpenRig,
) -> None:
    """Regression: what came meanwhile gave it a position, and the next start took it for whole."""
    rig = open_rig()
    last = rig.commit_many(3, 100)[-1]
    rig.feed()
    hidden = segment_of(rig, last)
    rig.close()
    forget_index(rig, None)
    with unreadable(hidden.name):
        again = open_rig()
        new = again.commit(payload(9, 1000), meta(9, "pacs")).kept
        again.feed()
        again.close()
    third = open_rig()
    assert third.row(last.id)
    assert last.id <= third.index.made_anew() < new.id


def test_ids_go_on_behind_the_last(open_rig: OpenRig) -> None:
    rig = open_rig()
    last = rig.commit_many(3, 100)[-1].id
    rig.close()
    again = open_rig()
    assert again.report.last_id == last
    assert again.begin().id == last + 1


def test_ids_go_on_behind_files_that_belong_to_nobody(open_rig: OpenRig) -> None:
    # Else a new large instance of that number would find its name taken, and be refused.
    rig = open_rig()
    (rig.spool.large_directory / f"{7:016x}.dat").write_bytes(b"left")
    rig.close()
    again = open_rig()
    for n in range(8):
        assert again.commit(payload(n, LARGE), meta(n)).error is None


def move_all(rig: Rig, generation: int) -> list[Ref]:
    refs = rig.index.refs_in(generation, 1000)
    places = [rig.relocate(ref) for ref in refs]
    rig.index.move(places)
    for place in places:
        rig.spool.moves.add(place)
    return places


@pytest.mark.parametrize("which", ["none", "yesterday", "newest", "unmoved"])
@pytest.mark.parametrize("old_place", ["there", "recycled"])
def test_moved_records_are_found_at_their_new_place(
    open_rig: OpenRig, which: str, old_place: str
) -> None:
    rig = open_rig()
    before = rig.commit_many(3, 2000, "pacs")
    rig.feed()
    saved = save_index(rig)
    # Of these, yesterday's index knows nothing: the copies are all there is of them.
    rig.spool.segments.seal()
    since = [rig.commit(payload(n, s), meta(n, "pacs")).kept for n, s in ((7, 900), (8, LARGE))]
    rig.feed()
    if which == "unmoved":
        saved = save_index(rig)
    rig.spool.segments.seal()
    for generation in (before[0].generation, since[0].generation):
        assert move_all(rig, generation)
    if old_place == "recycled":
        rig.index.barrier()
        position = rig.index.indexed_position()
        for generation in (before[0].generation, since[0].generation):
            assert rig.spool.segments.recycle(generation, wipe=True, indexed=position)
    rig.commit(payload(20, 500), meta(20, "pacs"))
    rig.feed()
    rig.close()
    if which != "newest":
        forget_index(rig, None if which == "none" else saved)
    again = open_rig()
    assert again.report.damage == []
    again.acked = rig.acked
    check_all(again)
    assert again.index.account(audit=True).received == 6
    assert again.keeper.sweep() == 0
    check_all(again)


def test_a_copy_of_a_purged_instance_is_left_out(open_rig: OpenRig) -> None:
    rig = open_rig()
    gone = rig.commit(payload(1, 1000), meta(1, disposition="discard")).kept
    rig.commit(payload(2, 1000), meta(2, "pacs"))
    rig.feed()
    rig.spool.segments.seal()
    rig.commit(payload(3, 1000), meta(3, "pacs"))
    rig.feed()
    rig.spool.segments.seal()
    rig.relocate(gone)
    assert rig.index.purge(2e9, 10).count == 1
    rig.acked.pop(gone.id)
    rig.close()
    again = open_rig()
    assert again.index.instance(gone.id) is None
    again.acked = rig.acked
    check_all(again)


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_purged_copy_was_sent_again_after_a_restart_while_nothing_new_came(
    open_rig: OpenRig, size: int
) -> None:
    # The index's position is then still in the generation that the copy came from.
    rig = open_rig()
    gone = rig.commit(payload(1, size), meta(1, "pacs")).kept
    kept = rig.commit(payload(2, size), meta(2, "pacs")).kept
    rig.feed()
    rig.spool.segments.seal()
    move_all(rig, gone.generation)
    rig.index.settle([Outcome(gone.id, "pacs", DeliveryState.DELIVERED, 1.0)])
    purged = rig.index.purge(2e9, 10)
    assert purged.count == 1
    for ref in purged.large:
        rig.spool.remove_large(ref.id)
    rig.close()
    again = open_rig()
    assert again.report.damage == []
    assert again.index.instance(gone.id) is None
    again.acked = {kept.id: rig.acked[kept.id]}
    check_all(again)


def test_a_crash_between_two_parts_of_a_rebuild_forgets_no_place(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    ref = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    rig.feed()
    saved = save_index(rig)
    rig.spool.segments.seal()
    move_all(rig, ref.generation)
    rig.index.barrier()
    position = rig.index.indexed_position()
    assert rig.spool.segments.recycle(ref.generation, wipe=True, indexed=position)
    rig.close()
    forget_index(rig, saved)
    real = Index.add

    def dying(self: Index, *arguments: object, **more: object) -> object:
        real(self, *arguments, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    halted = open_rig(start=False)
    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", dying)
        with pytest.raises(KeyboardInterrupt):
            halted.start()
    halted.close()
    again = open_rig()
    again.acked = rig.acked
    check_all(again)


def test_a_damaged_copy_does_not_replace_the_sound_original(open_rig: OpenRig) -> None:
    rig = open_rig()
    ref = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    rig.feed()
    rig.spool.segments.seal()
    copy = rig.relocate(ref)
    rig.close()
    with segment_of(rig, copy).open("r+b") as file:
        file.seek(copy.data_offset)
        file.write(b"rot")
    again = open_rig()
    assert again.row(ref.id).ref == ref
    assert len(again.report.damage) == 1
    again.acked = rig.acked
    check_all(again)


def test_a_sound_copy_replaces_the_damaged_original(open_rig: OpenRig) -> None:
    rig = open_rig()
    ref = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    rig.feed()
    rig.spool.segments.seal()
    copy = rig.relocate(ref)
    rig.close()
    with segment_of(rig, ref).open("r+b") as file:
        file.seek(ref.data_offset)
        file.write(b"rot")
    forget_index(rig, None)
    again = open_rig()
    assert again.row(ref.id).ref == copy
    again.acked = rig.acked
    check_all(again)


def test_orphans_are_left_where_records_are_damaged(open_rig: OpenRig) -> None:
    # One of them may be the data of an instance whose record cannot be read.
    rig = open_rig()
    large = rig.commit(payload(1, LARGE), meta(1, "pacs")).kept
    rig.commit(payload(2, 1000), meta(2, "pacs"))
    rig.close()
    with segment_of(rig, large).open("r+b") as file:
        file.seek(large.offset)
        file.write(bytes(64))
    again = open_rig()
    assert len(again.report.damage) == 1
    assert again.keeper.sweep() == 0
    path = again.spool.large_directory / f"{large.id:016x}.dat"
    assert path.read_bytes() == payload(1, LARGE)
    assert any("left" in note for note in again.spool.notes)


def test_what_recovery_finds_is_synced_first(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After `kill -9` the page cache may show a record that was never synced; in the index it
    # could stand for the copy of it that its sender sends again.
    rig = open_rig()
    rig.commit(payload(1, 1000), meta(1))
    large = rig.commit(payload(2, LARGE), meta(2)).kept
    rig.close()
    synced: set[str] = set()
    real = system.sync_data

    def syncing(fd: int) -> None:
        synced.add(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(system, "sync_data", syncing)
    again = open_rig()
    assert again.report.added == 2
    assert {segment_of(rig, large).name, f"{large.id:016x}.dat"} <= synced


def test_a_discarded_instance_whose_file_was_purged_is_no_damage_when_the_index_is_lost(
    tmp_path: Path, loop: Loop
) -> None:
    rig = Rig(tmp_path / "spool", loop, small()).start()
    rig.commit(payload(1, 200_000), meta(1, disposition="discard"))
    rig.feed()
    rig.step()
    rig.close()
    forget_index(rig, None)
    rig = Rig(tmp_path / "spool", loop, small()).start()
    assert rig.report.damage == []
    (row,) = rig.index.instances(Filter(), 10)
    assert row.meta.disposition == "discard"
    rig.close()


# -- any sequence ----------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.sampled_from([0, 1, 900, 60_000, 120_000, 200_000])),
        st.tuples(st.just("discarded"), st.sampled_from([500, 90_000, 200_000])),
        st.tuples(st.sampled_from(["feed", "step", "seal", "restart", "crash", "no index"])),
    ),
    max_size=25,
)


@given(ACTIONS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_sequence_loses_an_instance(
    tmp_path_factory: pytest.TempPathFactory, loop: Loop, actions: list[tuple[object, ...]]
) -> None:
    directory = tmp_path_factory.mktemp("sequence")
    rig = Rig(directory, loop, small()).start()
    kept: dict[int, tuple[bytes, object]] = {}
    try:
        for n, (action, *size) in enumerate(actions):
            if action in ("commit", "discarded"):
                disposition = "discard" if action == "discarded" else ""
                routes = () if disposition else ("pacs",)
                what = meta(n, *routes, disposition=disposition)
                ref = rig.commit(payload(n, int(size[0])), what).kept
                assert ref.id not in kept
                if not disposition:
                    kept[ref.id] = rig.acked[ref.id]
            elif action == "feed":
                rig.feed()
            elif action == "step":
                assert rig.step().trouble == ""
            elif action == "seal":
                rig.spool.segments.seal()
            else:
                if action == "restart":
                    rig.feed()
                rig.close()
                if action == "no index":
                    forget_index(rig, None)
                rig = Rig(directory, loop, small()).start()
                rig.keeper.sweep()
                assert rig.report.damage == []
            rig.acked = {**kept}  # type: ignore[dict-item]
            indexed = {row.ref.id for row in rig.index.instances(Filter(), 1000)}
            check_all(rig, sorted(kept.keys() & indexed))
        rig.feed()
        check_all(rig)
    finally:
        rig.close()
        shutil.rmtree(directory)
