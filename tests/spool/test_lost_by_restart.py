"""What a start cannot do or read is made up for by a later one: nothing is forgotten."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.spool import rebuild as module
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Filter, Outcome
from tests.spool.conftest import OpenRig
from tests.spool.keeping import lives
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload, segment_of

LARGE = 300 * KIB


@contextmanager
def unreadable(name: str, *, to_load: bool = True) -> Iterator[None]:
    """The file of that name cannot be opened: by recovery, and by the reading of headers."""
    path_open, os_open = Path.open, os.open

    def opening_path(self: Path, *arguments: object, **options: object) -> object:
        if to_load and self.name == name:
            raise PermissionError(13, "Permission denied")
        return path_open(self, *arguments, **options)  # type: ignore[call-overload]

    def opening(path: object, *arguments: object, **options: object) -> int:
        if str(path).endswith(name):
            raise OSError(5, "Input/output error")
        return os_open(path, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", opening_path)
        patch.setattr(os, "open", opening)
        yield


def uids(rig: Rig) -> set[str]:
    return {row.meta.sop_instance_uid for row in rig.index.instances(Filter(), 100)}


def settle(rig: Rig, numbers: list[int], destination: str) -> None:
    rig.index.settle(
        [
            Outcome(number, destination, DeliveryState.DELIVERED, 1e9, 0, "", None, True)
            for number in numbers
        ]
    )


@pytest.mark.parametrize("broken_off", [False, True])
def test_a_rebuild_that_was_broken_off_forgot_what_had_been_compacted(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, broken_off: bool
) -> None:
    rig = open_rig()
    waiting = [
        rig.commit(payload(1, 5000), meta(1, "pacs")).kept,
        rig.commit(payload(2, LARGE), meta(2, "pacs")).kept,
    ]
    others = [rig.commit(payload(n, 50_000), meta(n, "vna")).kept for n in range(3, 12)]
    rig.feed()
    settle(rig, [ref.id for ref in others], "vna")
    for _ in range(6):
        rig.step()
    assert all(rig.row(ref.id).ref.generation > ref.generation for ref in waiting), "compacted"
    for ref in others:
        rig.acked.pop(ref.id)
    for n in range(20, 30):
        rig.commit(payload(n, 50_000), meta(n, "pacs"))
    rig.feed()
    for ref in waiting:
        rig.index.move([rig.relocate(rig.row(ref.id).ref)])
    rig.commit(payload(40, 5000), meta(40, "pacs"))
    rig.feed()
    for _ in range(3):
        rig.step()
    rig.close()
    for path in rig.directory.glob("index.sqlite*"):
        path.unlink()
    monkeypatch.setattr(module, "_BATCH", 2)
    if broken_off:
        calls: list[int] = []
        add = Index.add

        def adding(*arguments: object, **options: object) -> object:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return add(*arguments, **options)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(Index, "add", adding)
            dying = open_rig(start=False)
            with pytest.raises(KeyboardInterrupt):
                dying.start()
            dying.close()
    again = open_rig()
    assert again.keeper.sweep() == 0
    again.acked = rig.acked
    check_all(again)


@pytest.mark.parametrize("size", [6000, LARGE])
@pytest.mark.parametrize("to_load", [True, False])
def test_a_segment_that_one_start_could_not_read_was_skipped_by_the_next(
    open_rig: OpenRig, size: int, to_load: bool
) -> None:
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    lost = rig.commit(payload(2, size), meta(2, "pacs")).kept  # and the index is not told
    path = segment_of(rig, lost)
    rig.close()
    with unreadable(path.name, to_load=to_load):
        second = open_rig()
        assert second.keeper.sweep() == 0
        new = second.commit(payload(3, 5000), meta(3, "pacs")).kept
        assert lost.id <= second.spool.doubted < new.id
        second.feed()
        second.step()
        second.close()
    third = open_rig()
    assert third.spool.doubted == 0
    assert third.keeper.sweep() == 0
    third.step()
    assert uids(third) == {f"1.2.3.4.{n}" for n in (1, 2, 3)}
    third.acked = {**rig.acked, **second.acked}
    check_all(third)
    third.close()
    assert not (third.directory / "spool" / "unread").read_text()


def test_numbers_of_a_segment_that_could_not_be_read_were_given_out_again(
    open_rig: OpenRig,
) -> None:
    rig = open_rig()
    lost = [rig.commit(payload(n, 5000), meta(n, "pacs")).kept for n in (1, 2, 3)]
    path = segment_of(rig, lost[0])
    rig.close()
    with unreadable(path.name):
        second = open_rig()
        for n in (11, 12):
            second.commit(payload(n, 5000), meta(n, "pacs"))
        second.feed()
        second.close()
    third = open_rig()
    assert uids(third) == {f"1.2.3.4.{n}" for n in (1, 2, 3, 11, 12)}
    assert not rig.acked.keys() & second.acked.keys()
    third.acked = {**rig.acked, **second.acked}
    check_all(third)


def test_a_record_that_could_not_be_read_once_was_recycled(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    lost = rig.commit(payload(2, 6000), meta(2, "pacs")).kept
    last = rig.commit(payload(3, 6000), meta(3, "pacs")).kept
    rig.close()
    pread: Callable[..., bytes] = os.pread
    failed: list[int] = []

    def reading(fd: int, count: int, offset: int) -> bytes:
        if offset == lost.offset and count == 64 and not failed:
            failed.append(offset)
            raise OSError(5, "Input/output error")
        return pread(fd, count, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", reading)
        second = open_rig()
    assert failed
    settle(second, [1, last.id], "pacs")
    for _ in range(3):
        second.step()
    assert lives(second), "its segment is kept"
    second.close()
    third = open_rig()
    assert "1.2.3.4.2" in uids(third)
    assert third.read(third.row(lost.id).ref) == payload(2, 6000)
