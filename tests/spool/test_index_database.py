"""The file of the index: its versions, its errors, what survives."""

import errno
import threading
from collections.abc import Iterable
from pathlib import Path

import apsw
import pytest

from router.spool import sqlite, system
from router.spool.errors import IndexDamaged, SpoolError, SpoolFull
from router.spool.index import DeliveryState, Disposition, Filter, Index, move_aside
from router.spool.index_database import Database
from router.spool.index_schema import STEPS, migrate, run_script
from router.spool.index_seal import unseal
from router.spool.plan import Plan
from router.spool.record import Position
from tests.spool import index_version_1, index_version_2
from tests.spool.index_samples import (
    DELIVERED,
    DROPPED,
    READY,
    T0,
    add,
    audited,
    fill,
    leased,
    meta,
    outcome,
    ref,
)

_NOT_WRITTEN = "SQLITE_IOERR_DATA"


def _schema(path: Path) -> dict[str, str]:
    connection = sqlite.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    found = {name: "".join(sql.split()) for name, sql in rows}
    connection.close()
    found.pop("sqlite_sequence")
    return found


def test_the_first_step_is_as_it_was_released(tmp_path: Path) -> None:
    index_version_1.build(tmp_path / "old.db")
    connection = sqlite.connect(tmp_path / "new.db")
    migrate(connection, STEPS[:1])
    connection.close()
    assert _schema(tmp_path / "new.db") == _schema(tmp_path / "old.db")


def test_the_second_step_is_as_it_was_released(tmp_path: Path) -> None:
    index_version_2.build(tmp_path / "old.db")
    connection = sqlite.connect(tmp_path / "new.db")
    migrate(connection, STEPS[:2])
    connection.close()
    assert _schema(tmp_path / "new.db") == _schema(tmp_path / "old.db")


def test_an_index_of_version_2_is_opened_with_all_it_has(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)
    with audited(path) as index:
        assert leased(index, "pacs", now=T0 + 10) == [10]
        assert index.gates() == []
        row = index.instance(7)
        assert row is not None
        assert row.meta.tags == ()
        assert [(d.state, d.plan, d.waits) for d in row.deliveries] == [
            (READY, "", ""),
            (DELIVERED, "", ""),
        ]
        # Of the same values but for the labels: not the old context.
        entry = (ref(13), meta(13, "pacs", plan=Plan(schedule="night"), tags=("late",)))
        assert add(index, entry, generation=3).gated == {"pacs": 1}
        assert [i.ref.id for i in index.instances(Filter(tag="late"), 5)] == [13]
        assert index.settle([outcome(7, "pacs", DROPPED)]).revived == 1
        assert index.release(Filter(ids=(12,)), at=T0).count == 1
        (gate,) = index.gates()
        assert index.open_gate(gate.id, 10).ready == {"pacs": 1}
        assert leased(index, "pacs", now=T0 + 10) == [10, 9, 12, 13]


def test_an_index_of_version_1_is_opened_with_all_it_has(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_1.build(path)
    with audited(path) as index:
        assert (index.last_id(), index.indexed_position()) == (8, Position(3, 65536))
        assert index.next_due("pacs") == T0 + 60
        (waiting,) = index.lease("pacs", 5, T0 + 60, [])
        assert (waiting.ref.id, waiting.attempts, waiting.study_instance_uid) == (7, 2, "1.2.3")
        assert [r.ref.id for r in index.instances(Filter(sop_instance_uid="1.2.3.8"), 5)] == [8]
        assert [r.ref.id for r in index.instances(Filter(disposition=Disposition.HELD), 5)] == [8]
        account = index.account()
        assert (account.received, account.held) == (2, 1)
        assert account.destinations["vna"].delivered == 1
        add(index, (ref(9), meta(9, "pacs", study="1.2.3")), generation=3)
        assert leased(index, "pacs") == [7, 9]


def _add_column(connection: apsw.Connection) -> None:
    run_script(
        connection, "ALTER TABLE instance ADD COLUMN note TEXT;\nUPDATE instance SET note='x';"
    )


def _break(connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM instance")
    connection.execute("SELECT no_such_column FROM instance")


def test_steps_are_taken_one_by_one_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_1.build(path)
    with pytest.raises(SpoolError, match="no_such_column"):
        Database(path, steps=(STEPS[0], _add_column, _break))
    database = Database(path, steps=(STEPS[0], _add_column))
    assert database.value("PRAGMA user_version") == 2
    assert database.value("SELECT count(*) FROM instance WHERE note = 'x'") == 2
    database.close()


def test_an_unfinished_statement_in_a_step_is_refused() -> None:
    connection = apsw.Connection(":memory:")
    with pytest.raises(ValueError, match="unfinished"):
        run_script(connection, "CREATE TABLE a(b);\nCREATE TABLE c(")
    connection.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Index.open(path).close()
    connection = sqlite.connect(path)
    connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    unseal(path)
    with pytest.raises(SpoolError, match="newer version of dcmrouter") as caught:
        Index.open(path)
    assert not isinstance(caught.value, IndexDamaged)


@pytest.mark.parametrize("content", [b"not a database at all " * 500, b"SQLite format 3\0" * 100])
def test_what_is_not_a_database_is_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(content)
    with pytest.raises(IndexDamaged, match=r"index\.db"):
        Index.open(path)


def test_a_database_of_something_else_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    connection = sqlite.connect(path)
    connection.execute("CREATE TABLE patients(name)")
    connection.close()
    with pytest.raises(IndexDamaged, match="something else"):
        Index.open(path)


def test_a_torn_index_is_moved_aside_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 2000), "pacs")
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 8192):
            file.seek(page * 8192)
            file.write(b"\xa5" * 8192)
    with pytest.raises(IndexDamaged):
        Index.open(path)
    path.with_name("index.db-wal").write_bytes(b"what the old one had in its journal")
    aside = move_aside(path, "damaged")
    assert aside.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "index.db.damaged",
        "index.db.damaged-wal",
    ]
    with audited(path) as index:
        assert index.last_id() == 0


@pytest.mark.parametrize("tree", ["delivery_ready", "delivery_repeat", "instance_generation"])
def test_an_index_whose_root_was_overwritten_was_opened_at_every_start(
    tmp_path: Path, tree: str
) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 3000), "pacs")
        root = index._db.value("SELECT rootpage FROM sqlite_schema WHERE name = ?", tree)
    _overwrite(path, [root - 1])
    unseal(path)
    with pytest.raises(IndexDamaged, match=_NOT_WRITTEN):
        Index.open(path)


def test_damage_met_at_work_was_met_again_after_every_start(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 3000), "pacs")
    index = Index.open(path)
    index._db.run("PRAGMA shrink_memory")  # all of it was read just now
    _overwrite(path, [path.read_bytes().index(b"1.2.3.4.1500") // 8192])
    with pytest.raises(IndexDamaged, match=_NOT_WRITTEN) as met:
        index.account(audit=True)
    for said in ("no instance is lost", "restart the gateway", "may be sent again"):
        assert said in str(met.value)
    index.close()
    for _ in range(2):
        with pytest.raises(IndexDamaged, match=_NOT_WRITTEN):
            Index.open(path)
    move_aside(path, "damaged")
    with audited(path) as index:
        assert index.last_id() == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["index.db", "index.db-sealed", "index.db.damaged"]


def test_a_disk_that_forgets_a_sector_after_a_clean_end_takes_nothing_along(tmp_path: Path) -> None:
    """Without some of what its trees say an index leaves out what waits, and lets it be purged."""
    path = tmp_path / "index.db"
    with audited(path) as index:
        for study in range(6):
            numbers = range(study * 100 + 1, study * 100 + 101)
            fill(index, numbers, "pacs", "vna", study=f"1.2.{study}")
        index.settle([outcome(number, "pacs", DELIVERED) for number in range(1, 301)])
    sound = path.read_bytes()
    for at in range(0, len(sound), 512):
        if not any(sound[at : at + 512]):
            continue
        path.write_bytes(sound[:at] + bytes(512) + sound[at + 512 :])
        unseal(path)  # which tells at once
        try:
            index = Index.open(path)
        except SpoolError:
            path.with_name("index.db-damaged").unlink(missing_ok=True)
            continue
        waiting = leased(index, "pacs", limit=1000), leased(index, "vna", limit=1000)
        index.close()
        assert waiting == (list(range(301, 601)), list(range(1, 601))), f"sector at {at}"


@pytest.mark.parametrize("crash", [False, True])
def test_damage_deep_in_the_file_is_found_at_the_start(tmp_path: Path, crash: bool) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 3000), "pacs")
    _overwrite(path, [path.read_bytes().index(b"1.2.3.4.1500") // 8192])
    if crash:
        path.with_name("index.db-wal").touch()
    with pytest.raises(IndexDamaged, match=r"index\.db"):
        Index.open(path)


def test_the_mark_stays_until_what_was_moved_aside_is_so_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(b"damaged")
    mark = tmp_path / "index.db-damaged"
    mark.write_text("index: malformed")

    def broken(_: Path) -> None:
        assert not path.exists()
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(system, "sync_directory", broken)
        with pytest.raises(SpoolError, match=r"moving the damaged index .* aside: Input/output"):
            move_aside(path, "damaged")
    assert mark.exists(), "a power cut may bring the damaged one back"
    move_aside(path, "damaged")
    assert not mark.exists()


def test_what_waits_is_never_purged_whatever_else_the_index_says(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path)
    fill(index, [1], "pacs", "vna")
    index.settle([outcome(1, "pacs", DELIVERED)])
    index._db.run("UPDATE instance SET unsettled = 0, settled_at = 1")
    with pytest.raises(IndexDamaged, match="still wait to be delivered"):
        index.purge(T0 + 1e6, 10)
    assert leased(index, "vna") == [1]
    index.close()
    with pytest.raises(IndexDamaged, match="still wait"):
        Index.open(path)  # it is made anew from the spool


def test_what_was_moved_aside_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    for content in ("first", "second"):
        path.write_text(content)
        assert move_aside(path, "damaged").read_text() == content
    assert (tmp_path / "index.db.damaged").read_text() == "first"


def _overwrite(path: Path, pages: Iterable[int]) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * 8192)
            file.write(b"\xa5" * 8192)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="unable to open"):
        Index.open(tmp_path / "missing" / "index.db")


# -- no space


def _shrink(index: Index) -> None:
    pages = index._db.value("PRAGMA page_count")
    index._db.value(f"PRAGMA max_page_count = {pages}")


def _grow(index: Index) -> None:
    index._db.value("PRAGMA max_page_count = 1000000")


def test_without_space_a_batch_is_rolled_back_whole(tmp_path: Path) -> None:
    with audited(tmp_path / "index.db") as index:
        fill(index, range(1, 11), "pacs")
        before = (index.account(audit=True), index.indexed_position(), index.last_id())
        _shrink(index)
        with pytest.raises(SpoolFull, match="full"):
            fill(index, range(11, 2000), "pacs", study="1.77")
        assert (index.account(audit=True), index.indexed_position(), index.last_id()) == before
        assert leased(index, "pacs") == list(range(1, 11))
        done = index.settle([outcome(n, "pacs", DELIVERED) for n in range(1, 11)])
        assert done.applied == 10, "what needs no space goes on"
        _grow(index)
        assert fill(index, range(11, 2000), "pacs", study="1.77").added == 1989
        assert leased(index, "pacs", limit=2) == [11, 12]


def test_without_space_an_action_is_rolled_back_whole(tmp_path: Path) -> None:
    with audited(tmp_path / "index.db") as index:
        fill(index, range(1, 1000), "pacs")
        _shrink(index)
        with pytest.raises(SpoolFull):
            index.hold(Filter(), "a long reason " * 50, at=T0)
        _grow(index)
        line = index.account(audit=True).destinations["pacs"]
        assert (line.waiting, line.held) == (999, 0)
        assert index.events(5) == []


def test_without_space_what_came_due_is_leased_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with audited(tmp_path / "index.db") as index:
        fill(index, [1, 2, 3], "pacs")
        index.settle([outcome(n, "pacs", READY, due_at=T0 + 10 * n) for n in (1, 2)])

        def full(*_: object) -> int:
            raise SpoolFull("no space")

        monkeypatch.setattr(index._db, "run", full)
        assert leased(index, "pacs", now=T0 + 15) == [1, 3]
        monkeypatch.undo()
        assert leased(index, "pacs", now=T0 + 15) == [1, 3]


# -- threads -----------


def test_closing_waits_for_the_call_under_way_and_twice_is_harmless(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db")
    comparing, closing = threading.Event(), threading.Event()

    def slow_work() -> None:
        with index._db.transaction():
            comparing.set()
            closing.wait(10)
            index._db.run("INSERT INTO rule(name) VALUES ('late')")

    worker = threading.Thread(target=slow_work)
    worker.start()
    assert comparing.wait(10)
    closer = threading.Thread(target=index.close)
    closer.start()
    closing.set()
    worker.join(10)
    closer.join(10)
    index.close()
    with pytest.raises(SpoolError, match="closed"):
        index.account()
    with audited(tmp_path / "index.db") as index:
        assert index._db.value("SELECT name FROM rule") == "late"


def test_an_index_may_be_used_from_another_thread(tmp_path: Path) -> None:
    with audited(tmp_path / "index.db") as index:
        thread = threading.Thread(target=fill, args=(index, [1], "pacs"))
        thread.start()
        thread.join(10)
        assert leased(index, "pacs") == [1]


def test_states_keep_their_numbers() -> None:
    assert [(s.name, int(s)) for s in DeliveryState] == [
        ("READY", 0),
        ("HELD", 1),
        ("DEAD", 2),
        ("DELIVERED", 3),
        ("DROPPED", 4),
        ("DUPLICATE", 5),
        ("UNCOMMITTED", 6),
    ]
    assert [int(d) for d in Disposition] == [0, 1, 2, 3]
