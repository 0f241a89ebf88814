"""The index on a file that fails under SQLite's feet: the feed keeps what it does not take.

SQLite itself meets the errors here: its descriptors are replaced by ones that fail.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import apsw
import pytest

from router.ingest import feed as feed_module
from router.ingest.feed import IndexFeed
from router.spool import sqlite
from router.spool.errors import IndexDamaged, SpoolError, SpoolFull
from router.spool.index import Filter, Index
from router.spool.index_types import AddResult
from router.spool.record import InstanceMeta, Position, Ref
from tests.forward.virtual import run
from tests.spool.faults import sqlite_error
from tests.spool.index_samples import meta, ref

Broken = Callable[[Index, Path], AbstractContextManager[None]]


@contextmanager
def _crippled(path: Path, flags: int) -> Iterator[None]:
    """What this process has open as ``path`` may only be read, or only written, for a while."""
    found = [
        number
        for number in map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208
        if _leads_to(number, path)
    ]
    assert found, f"nobody has {path} open"
    other = os.open(path, flags)
    kept = [os.dup(number) for number in found]
    for number in found:
        os.dup2(other, number, inheritable=False)
    os.close(other)
    try:
        yield
    finally:
        for number, before in zip(found, kept, strict=True):
            os.dup2(before, number, inheritable=False)
            os.close(before)


def _leads_to(number: int, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}") == str(path)  # noqa: PTH115 - may be none
    except OSError:
        return False


@contextmanager
def _full(index: Index, _: Path) -> Iterator[None]:
    """SQLite's own limit: the database may not grow."""
    run = index._db._connection.execute
    (pages,) = run("PRAGMA page_count").fetchone()
    run(f"PRAGMA max_page_count = {pages}")
    yield
    run("PRAGMA max_page_count = 1000000")


def _unwritable(_: Index, path: Path) -> AbstractContextManager[None]:
    """Every write to the log fails."""
    return _crippled(path.with_name(path.name + "-wal"), os.O_RDONLY)


@contextmanager
def _read_only(index: Index, _: Path) -> Iterator[None]:
    run = index._db._connection.execute
    run("PRAGMA query_only = ON")
    yield
    run("PRAGMA query_only = OFF")


@contextmanager
def _locked(index: Index, path: Path) -> Iterator[None]:
    index._db._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite.connect(path)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


BROKEN: dict[str, tuple[Broken, type[SpoolError], str]] = {
    "full": (_full, SpoolFull, "database or disk is full"),
    "disk I/O error": (_unwritable, SpoolError, "disk I/O error"),
    "readonly database": (_read_only, SpoolError, "readonly database"),
    "locked": (_locked, SpoolError, "database is locked"),
}
ERRORS = pytest.mark.parametrize("how", list(BROKEN))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    opened = Index.open(path)
    _add(opened, 1)  # so that the log is there
    yield opened
    opened.close()


def _add(index: Index, *numbers: int) -> AddResult:
    return index.add(
        [(ref(n), meta(n, "pacs")) for n in numbers],
        Position(1, max(numbers) * 4096),
        suppress_duplicates=False,
        same_bytes=lambda *_: False,
    )


def _numbers(index: Index) -> list[int]:
    return [row.ref.id for row in index.instances(Filter(), 1000)]


@ERRORS
def test_a_batch_that_fails_leaves_nothing_and_goes_in_afterwards(
    index: Index, path: Path, how: str
) -> None:
    breaking, kind, text = BROKEN[how]
    with breaking(index, path), pytest.raises(kind, match=text) as caught:
        _add(index, *range(2, 400))
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    assert _numbers(index) == [1]
    assert index.indexed_position() == Position(1, 4096)
    _add(index, *range(2, 400))
    assert _numbers(index) == list(range(1, 400))
    assert index.account(audit=True).balanced
    index.close()
    again = Index.open(path)
    assert again.account(audit=True).differences == {}
    assert len(_numbers(again)) == 399
    again.close()


@ERRORS
def test_the_feed_keeps_what_the_index_does_not_take(
    index: Index, path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "LIMIT", 50)
    breaking, _, text = BROKEN[how]
    tries: list[int] = []
    told: list[tuple[str, int]] = []

    async def add(entries: Sequence[tuple[Ref, InstanceMeta]], end: Position) -> AddResult:
        tries.append(len(entries))
        return index.add(entries, end, suppress_duplicates=False, same_bytes=lambda *_: False)

    async def scenario() -> None:
        feed = IndexFeed(add, lambda destination, count: told.append((destination, count)))
        feed.start()
        with breaking(index, path):
            for number in range(2, 402):
                feed.add(ref(number), meta(number, "pacs"), Position(1, number * 4096))
            await _until(lambda: len(tries) >= 4)
            assert text in feed.trouble
            assert feed.waiting == 400
            assert "400 instances wait for the index" in feed.refusal
            assert text in feed.refusal
            assert told == []
        await _until(lambda: not feed.waiting)
        assert (feed.trouble, feed.refusal) == ("", "")
        feed.add(ref(402), meta(402, "pacs"), Position(1, 402 * 4096))
        await feed.stop()

    run(scenario())
    assert _numbers(index) == list(range(1, 403))
    assert sum(count for _, count in told) == 401
    assert index.indexed_position() == Position(1, 402 * 4096)


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):  # virtual time: each jumps to the next timer
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came true")


@ERRORS
def test_reading_goes_on_while_nothing_can_be_written(index: Index, path: Path, how: str) -> None:
    _add(index, *range(2, 10))
    with BROKEN[how][0](index, path):
        assert index.account().received == 9
        assert len(index.queue_list(Filter(), 100)) == 9
        assert index.last_id() == 9


def test_a_database_that_cannot_be_read_is_told_and_read_again(path: Path) -> None:
    index = Index.open(path)
    _add(index, *range(1, 3000))
    index.close()
    index = Index.open(path)
    index._db.run("PRAGMA shrink_memory")  # all of it was read just now
    with (
        _crippled(path, os.O_WRONLY),
        pytest.raises(SpoolError, match="disk I/O error"),
    ):
        index.account(audit=True)
    assert index.account(audit=True).balanced
    index.close()
    Index.open(path).close()


def test_a_checkpoint_that_fails_costs_nothing(path: Path) -> None:
    index = Index.open(path)
    index._db._connection.execute("PRAGMA wal_autocheckpoint = 1")
    with _crippled(path, os.O_RDONLY):
        for number in range(1, 20):
            _add(index, number)
        assert index._db._connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (1,)
    _add(index, 20)
    index.close()
    again = Index.open(path)
    assert _numbers(again) == list(range(1, 21))
    assert again.account(audit=True).balanced
    again.close()


def test_the_mark_of_a_damaged_index_outlives_the_error_of_writing_it(
    path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    damaged = sqlite_error(apsw.SQLITE_CORRUPT)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(IndexDamaged, match="restart the gateway"), index._db._translated():
            raise damaged
    assert not path.with_name("index.sqlite-damaged").exists()
    with pytest.raises(IndexDamaged), index._db._translated():
        raise damaged
    index.close()
    with pytest.raises(IndexDamaged, match="malformed"):
        Index.open(path)
