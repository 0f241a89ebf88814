"""After an end that was not clean, an index of which a bit is not what was written: what its trees
do not tell of each other."""

from itertools import combinations
from pathlib import Path

import pytest

from router.opening import open_index
from router.spool import sqlite
from router.spool.errors import IndexDamaged
from router.spool.index import Index
from router.spool.record import Ref, RouteMeta
from router.spool.settings import ArchiveSettings
from tests.spool.archiving import files, once
from tests.spool.conftest import OpenRig
from tests.spool.keeping import LARGE, T0, deliver, fill
from tests.spool.spool_samples import Loop, Rig, check_all, meta, payload, settings
from tests.spool.test_lost_by_restart import uids
from tests.spool.test_rebuild import save_index

_COUNT = "what = 60 AND key = 1"


@pytest.fixture
def killed(tmp_path: Path, loop: Loop) -> Rig:
    """One of its instances the index was not told of."""
    rig = Rig(tmp_path, loop, settings()).start()
    fill(rig, 1, 50_000, "pacs")
    fill(rig, 3, 50_000, "pacs")
    rig.commit(payload(9, 5000), meta(9, "pacs"))
    rig.close()
    (tmp_path / "index.sqlite-sealed").unlink()
    return rig


def _change(killed: Rig, statement: str) -> None:
    with sqlite.connect(killed.directory / "index.sqlite") as connection:
        connection.execute(statement)
        assert connection.changes() == 1
    connection.close()


def _started(killed: Rig) -> Rig:
    rig = Rig(killed.directory, killed.loop, settings(), open_index).start()
    rig.acked = killed.acked
    for _ in range(3):
        rig.step()
    return rig


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE tally SET n = 0 WHERE {_COUNT}",
        f"UPDATE tally SET key = 65 WHERE {_COUNT}",
        f"UPDATE tally SET what = 61 WHERE {_COUNT}",
        f"DELETE FROM tally WHERE {_COUNT}",
    ],
)
def test_a_segment_was_given_up_by_a_count_alone(killed: Rig, statement: str) -> None:
    _change(killed, statement)
    rig = _started(killed)
    check_all(rig)
    rig.close()


@pytest.mark.parametrize("key", ["generation", "offset", "last_id", "next_context"])
@pytest.mark.parametrize("change", ["value = value | 1 << 20", "value = 0", "key = 'x' || key"])
def test_a_position_that_nobody_noted_hid_what_was_acknowledged(
    killed: Rig, key: str, change: str
) -> None:
    _change(killed, f"UPDATE meta SET {change} WHERE key = '{key}'")
    rig = _started(killed)
    check_all(rig)
    assert "1.2.3.4.9" in uids(rig)
    rig.close()


def test_a_position_of_a_version_that_noted_no_sum_counts(killed: Rig) -> None:
    _change(killed, "DELETE FROM meta WHERE key = 'position_sum'")
    index = Index.open(killed.directory / "index.sqlite")
    assert index.indexed_position() is not None
    index.close()


def test_a_segment_with_records_is_not_given_up_while_running(killed: Rig) -> None:
    rig = Rig(killed.directory, killed.loop, settings()).start()
    rig.acked = killed.acked
    rig.index._db.run(f"DELETE FROM tally WHERE {_COUNT}")
    upkeep = rig.step()
    assert upkeep.recycled == 0
    assert "the index is damaged" in upkeep.trouble
    check_all(rig)
    rig.close()
    again = _started(killed)
    check_all(again)
    assert again.step().trouble == ""
    again.close()


def test_a_text_that_is_none_any_more_stopped_a_queue_for_ever(killed: Rig) -> None:
    _change(
        killed,
        "UPDATE context SET transfer_syntax_uid = CAST(X'FF2E' AS TEXT)"
        " WHERE id = (SELECT max(id) FROM context)",
    )
    rig = Rig(killed.directory, killed.loop, settings(), open_index).start()
    with pytest.raises(IndexDamaged, match="restart"):
        rig.index.lease("pacs", 10, 2e9, ())
    rig.close()
    again = _started(killed)
    assert len(again.index.lease("pacs", 10, 2e9, ())) == 5
    check_all(again)
    again.close()


def test_a_text_that_became_bytes_stopped_a_queue_for_ever(killed: Rig) -> None:
    rig = _started(killed)
    with sqlite.connect(killed.directory / "index.sqlite") as connection:
        connection.execute("PRAGMA writable_schema = ON")
        change = "UPDATE sqlite_schema SET sql = {} WHERE name = 'context'"
        (sql,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'context'"
        ).fetchone()
        connection.execute(change.format("replace(sql, 'STRICT', '')"))
        connection.execute("PRAGMA schema_version = 1000")
        connection.execute("UPDATE context SET transfer_syntax_uid = X'312E32'")
        connection.execute(change.format("?"), (sql,))
        connection.execute("PRAGMA schema_version = 1001")
    connection.close()
    with pytest.raises(IndexDamaged, match="restart"):
        rig.index.lease("pacs", 10, 2e9, ())
    rig.close()
    again = _started(killed)
    assert len(again.index.lease("pacs", 10, 2e9, ())) == 5
    check_all(again)
    again.close()


def test_a_schema_that_cannot_be_read_ended_each_start(killed: Rig) -> None:
    path = killed.directory / "index.sqlite"
    raw = path.read_bytes()
    at = raw.index(b"CREATE TABLE tally(") + len("CREATE TABLE ")
    path.write_bytes(raw[:at] + b"\xf4" + raw[at + 1 :])
    rig = _started(killed)
    check_all(rig)
    rig.close()


_TABLES = ("meta", "tally", "instance", "delivery", "context", "destination")
_SOME = [some for n in range(1, len(_TABLES)) for some in combinations(_TABLES, n)]


@pytest.mark.parametrize("newer", _SOME, ids="+".join)
def test_tables_of_different_times(tmp_path: Path, loop: Loop, newer: tuple[str, ...]) -> None:
    """A kill while the log was written back, and damage to the log."""
    rig = Rig(tmp_path, loop, settings()).start()
    fill(rig, 3, 5000, "pacs")
    before = save_index(rig)
    rig.commit(payload(8, 5000), meta(8, "vna"))
    rig.commit(payload(9, 5000), meta(9, "vna"))
    rig.feed()
    deliver(rig, [rig.row(1).ref])
    rig.close()
    after = tmp_path / "index.sqlite"
    with sqlite.connect(before) as connection:
        connection.execute("ATTACH ? AS newer", (str(after),))
        for table in newer:
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} SELECT * FROM newer.{table}")
    connection.close()
    before.replace(after)
    (tmp_path / "index.sqlite-sealed").unlink()
    again = _started(rig)
    check_all(again)
    going = {(w.ref.id, to) for to in ("pacs", "vna") for w in again.index.lease(to, 9, 2e9, ())}
    assert going >= {(number, "pacs") for number in (2, 3)} | {(n, "vna") for n in (4, 5)}
    again.close()


_OTHER_WORDS = pytest.mark.parametrize(
    "statement",
    [
        "UPDATE context SET transfer_syntax_uid = '1.2.840.10008.1.2.5' WHERE id = {last}",
        "UPDATE context SET sop_class_uid = '1.2' WHERE id = {last}",
        "UPDATE instance SET sop_instance_uid = '1.2.3.4.8' WHERE id = 4",
    ],
)


@_OTHER_WORDS
def test_another_transfer_syntax_or_uid_was_told(killed: Rig, statement: str) -> None:
    _change(killed, statement.format(last="(SELECT max(id) FROM context)"))
    rig = Rig(killed.directory, killed.loop, settings(), open_index).start()
    with pytest.raises(IndexDamaged, match="other words"):
        rig.index.lease("pacs", 10, 2e9, ())
    rig.close()
    again = _started(killed)
    check_all(again)
    assert len(again.index.lease("pacs", 10, 2e9, ())) == 5
    again.close()


@_OTHER_WORDS
def test_another_transfer_syntax_or_uid_was_archived(
    killed: Rig, tmp_path: Path, statement: str
) -> None:
    """The file in the archive is all that is left of it."""
    folder = tmp_path / "archive"
    folder.mkdir()
    _change(killed, statement.format(last="(SELECT max(id) FROM context)"))
    archive = ArchiveSettings(folder=str(folder), after=0.0)
    rig = Rig(killed.directory, killed.loop, settings(archive=archive), open_index).start()
    rig.acked = killed.acked
    deliver(rig, [Ref(n, 0, 0, 0, 0, 0, False) for n in rig.acked])
    moved = once(rig)
    assert moved is not None
    assert "other words" in moved.trouble
    assert files(folder) == {}
    rig.close()
    again = _started(killed)
    check_all(again)
    again.close()


def _open_without_sums(path: Path) -> Index:
    index = open_index(path)
    index._db.run("PRAGMA checksum_verification = OFF")
    return index


def test_a_page_that_is_not_what_was_written_is_never_used(open_rig: OpenRig) -> None:
    """Whatever a bit of it says, while the gateway runs or at the next start."""
    rig = open_rig(spare_segments=3)
    fill(rig, 60, 5000, "pacs", "vna")
    rig.commit(payload(99, 5000), meta(99))
    rig.feed()
    path = rig.directory / "index.sqlite"
    run = rig.index._db._connection.execute
    run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    size, pages = run("PRAGMA page_size").get, run("PRAGMA page_count").get
    sound = path.read_bytes()
    assert len(sound) == size * pages
    assert pages > 10
    for page in range(1, pages):
        at = page * size + (page * 2654435761) % size
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        run("PRAGMA shrink_memory")
        with pytest.raises(IndexDamaged, match=r"SQLITE_IOERR_DATA|code=8202"):
            rig.index._db.look_through()
    rig.close()
    again = _started(rig)
    check_all(again)
    again.close()


def _read_otherwise(rig: Rig, tree: str, old: bytes, new: bytes) -> None:
    """What the disk gives of a tree from now on, and no sum tells."""
    path = rig.directory / "index.sqlite"
    run = rig.index._db._connection.execute
    run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    (root,) = run("SELECT rootpage FROM sqlite_schema WHERE name = ?", (tree,)).fetchone()
    (size,) = run("PRAGMA page_size").fetchone()
    raw = path.read_bytes()
    at = raw.index(old, (root - 1) * size, root * size)
    path.write_bytes(raw[:at] + new + raw[at + len(old) :])
    run("PRAGMA checksum_verification = OFF")
    run("PRAGMA shrink_memory")


def test_a_held_one_that_a_damaged_tree_counts_among_the_settled_was_purged(
    open_rig: OpenRig,
) -> None:
    rig = open_rig(spare_segments=3)
    fill(rig, 2, 5000, "pacs")
    rig.commit(payload(9, 5000), meta(9))
    rig.feed()
    rig.spool.segments.seal()
    rig.commit(payload(8, 5000), meta(8, "pacs"))
    rig.feed()
    deliver(rig, [rig.row(2).ref])
    settled = round(T0 * 1e6).to_bytes(8, "big")
    _read_otherwise(rig, "instance_settled", settled + b"\2", settled + b"\3")
    with pytest.raises(IndexDamaged, match="not settled"):
        rig.step(T0 + 1e6)
    rig.close()
    again = _started(rig)
    check_all(again)
    assert again.index.account().held == 1
    again.close()


def test_the_file_of_one_that_the_index_lost_while_it_ran_was_removed(open_rig: OpenRig) -> None:
    """The next start takes the index for sound, as it is what it was when it was closed."""
    rig = open_rig()
    fill(rig, 2, LARGE, "pacs")
    _read_otherwise(rig, "instance", b"\2\x12", b"\6\x12")
    rig.close()
    again = Rig(rig.directory, rig.loop, settings(), _open_without_sums).start()
    assert again.keeper.sweep() == 0
    again.close()
    last = _started(rig)
    check_all(last)
    last.close()


@pytest.mark.parametrize(
    ("tree", "old", "new"),
    [
        ("destination", b"pacs", b"qacs"),
        ("sqlite_autoindex_destination_1", b"pacs", b"qacs"),
        ("sqlite_autoindex_destination_1", b"vna\2", b"vna\3"),
        ("destination", b"\r\0\0\0\2", b"\r\0\0\0\x82"),
        ("rule", b"a rule", b"a rulf"),
    ],
)
def test_what_waits_for_one_went_to_another(
    open_rig: OpenRig, tree: str, old: bytes, new: bytes
) -> None:
    """While it runs, when there is another destination; at the next start, too."""
    rig = open_rig()
    fill(rig, 1, 5000, "pacs")
    fill(rig, 1, 5000, "vna")
    _read_otherwise(rig, tree, old, new)
    rig.commit(payload(9, 5000), meta(9, "new")._replace(routes=(RouteMeta("new", "other"),)))
    with pytest.raises(IndexDamaged, match="two names"):
        rig.feed()
    rig.close()
    (rig.directory / "index.sqlite-damaged").unlink(missing_ok=True)
    again = _started(rig)
    check_all(again)
    assert [len(again.index.lease(name, 9, 2e9, ())) for name in ("pacs", "vna", "new")] == [1] * 3
    again.close()


def test_a_copy_was_made_without_the_bytes_that_the_index_says_lie_in_a_file(
    open_rig: OpenRig,
) -> None:
    """No tree has that; nor would the record that lost them tell."""
    rig = open_rig(spare_segments=3)
    refs = fill(rig, 3, 50_000, "pacs")
    deliver(rig, refs[1:])
    rig.close()
    (rig.directory / "index.sqlite-sealed").unlink()
    _change(rig, "UPDATE instance SET large = 1 WHERE id = 1")
    again = _started(rig)
    again.close()
    (rig.directory / "index.sqlite").unlink()
    last = _started(rig)
    check_all(last, [1])
    last.close()
