"""Whether the tables of an index agree: what is found, and that nothing sound is made anew.

Every index that a test is given is looked at as well when that is over (`index_samples.audited`).
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from router.spool import sqlite
from router.spool.errors import IndexDamaged
from router.spool.index import Filter, Index
from router.spool.index_check import disagreement
from router.spool.index_schema import STEPS
from router.spool.plan import Plan
from tests.spool import index_version_1, index_version_2
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    READY,
    T0,
    UNCOMMITTED,
    add,
    audited,
    fill,
    leased,
    meta,
    outcome,
    ref,
)
from tests.spool.statements import statements

WHOLE = Plan("failover", ("pacs", "vna"), after="study-complete", schedule="night")

# -- what is found ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE tally SET n = n + 1 WHERE what = 60", "other records than it has"),
        ("UPDATE tally SET key = 9 WHERE what = 60", "other records than it has"),
        ("UPDATE instance SET generation = 2 WHERE id = 7", "other records than it has"),
        ("UPDATE tally SET n = 0 WHERE (what, key) = (0, 1)", "other deliveries than it has"),
        ("DELETE FROM tally WHERE (what, key) = (2, 2)", "other deliveries than it has"),
        ("UPDATE tally SET key = 9 WHERE (what, key) = (6, 2)", "other deliveries than it has"),
        ("UPDATE delivery SET state = 3 WHERE instance_id = 1", "other deliveries than it has"),
        ("DELETE FROM delivery WHERE instance_id = 3 AND state = 3", "has no deliveries"),
        ("UPDATE instance SET disposition = 0 WHERE id = 7", "has no deliveries"),
        ("DELETE FROM destination WHERE name = 'pacs'", "a destination that is not there"),
        ("DELETE FROM destination WHERE name = 'vna'", "a destination that is not there"),
        ("DELETE FROM destination WHERE name = 'tele'", "a destination that is not there"),
        ("DELETE FROM context WHERE id = 1", "a context that is not there"),
        ("DELETE FROM context WHERE id = (SELECT max(id) FROM context)", "a context that is not"),
        ("UPDATE instance SET context_id = 99 WHERE id = 2", "a context that is not there"),
        ("DELETE FROM plan WHERE id = 1", "a plan that is not there"),
        ("UPDATE delivery SET plan_id = 99 WHERE instance_id = 5", "a plan that is not there"),
        ("UPDATE delivery SET plan_id = 99 WHERE instance_id = 6", "a plan that is not there"),
        ("DELETE FROM gate WHERE kind = 0 AND shut > 0", "a gate that is not there"),
        ("UPDATE gate SET shut = 0 WHERE kind = 0", "a gate that is not there"),
        ("UPDATE delivery SET gate_id = 99 WHERE instance_id = 6", "a gate that is not there"),
    ],
)
def test_what_does_not_agree_is_found(tmp_path: Path, statement: str, what: str) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        _something_of_all(index)
    path.with_name("index.db-sealed").unlink()
    with closing(sqlite.connect(path)) as connection:
        connection.execute(statement)
        assert connection.changes() > 0
    with pytest.raises(IndexDamaged, match=what):
        Index.open(path)


def _something_of_all(index: Index) -> None:
    """1 and 2 wait for pacs, 3 was delivered there, 4 is dead at vna, 8 to be committed there, 5
    waits for tele by a plan, 6 behind a gate of its study, 7 is held, 9 repeats 1."""
    fill(index, [1, 2, 3], "pacs")
    fill(index, [4], "vna")
    fill(index, [5], "tele", plan=Plan("failover", ("tele", "vna")))
    fill(index, [6], "pacs", study="1.9", plan=WHOLE)
    fill(index, [7])
    add(index, (ref(8), meta(8, "vna", series="1.2.3.2")))
    add(index, (ref(9, crc=1), meta(9, "pacs", uid="1.2.3.4.1")))
    index.settle(
        [
            outcome(3, "pacs", DELIVERED),
            outcome(4, "vna", DEAD),
            outcome(8, "vna", UNCOMMITTED),
        ]
    )
    assert disagreement(index._db) == ""


def test_nothing_is_sorted(index: Index) -> None:
    """Of a million rows that would take longer than all the rest."""
    _something_of_all(index)
    connection = index._db._connection
    with statements(index) as seen:
        disagreement(index._db)
    ways = [str(row[-1]) for sql in seen for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert len(seen) > 7
    assert [way for way in ways if "TEMP B-TREE" in way] == []
    sorting = connection.execute("EXPLAIN QUERY PLAN SELECT DISTINCT attempts FROM delivery")
    assert any("TEMP B-TREE" in row[-1] for row in sorting), "that it is still told in these words"


# -- what is sound ---------------------------------------------------------------------------------


def _open_study(index: Index) -> None:
    gate, _ = [gate for gate in index.gates() if gate.kind == "study"]
    index.open_gate(gate.id)


def _open_all(index: Index) -> None:
    while gates := index.gates():
        index.open_gate(gates[0].id)


def _purge_with_its_plan(index: Index) -> None:
    """Nothing is left of a plan, a study, a context or a destination."""
    index.hasten(Filter(), at=T0)
    index.settle([outcome(n, "pacs", DELIVERED) for n in leased(index, "pacs")])
    assert index.purge(T0 + 1e9, 10).count == 4
    fill(index, [10], "pacs")


def _purge_with_nothing_left(index: Index) -> None:
    index.drop(Filter(), "the end", at=T0)
    assert index.purge(T0 + 1e9, 10).count == 4


STATES: list[Callable[[Index], object]] = [
    lambda index: None,
    lambda index: index.open_gate(index.gates()[0].id, 1),
    _open_study,
    _open_all,
    lambda index: (_open_all(index), index.shut_gate(None, "night")),
    lambda index: index.hold(Filter(ids=(1, 2)), at=T0),
    lambda index: (index.hold(Filter(), at=T0), _open_all(index), index.release(Filter(), at=T0)),
    lambda index: index.hasten(Filter(), at=T0),
    lambda index: index.divert("pacs", ["vna"], [], T0),
    lambda index: (index.divert("pacs", ["vna"], [], T0), _open_all(index)),
    lambda index: index.redirect(Filter(destination="pacs"), "renamed", at=T0),
    lambda index: index.drop(Filter(ids=(1, 2)), "no", at=T0),
    lambda index: (index.drop(Filter(), "no", at=T0), index.resend(Filter(), ["vna"], "o", at=T0)),
    _purge_with_its_plan,
    _purge_with_nothing_left,
]


@pytest.mark.parametrize("state", STATES)
def test_nothing_sound_is_made_anew(tmp_path: Path, state: Callable[[Index], object]) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, [1, 2, 3], "pacs", plan=WHOLE)
        fill(index, [4], "pacs", study="1.9", plan=WHOLE)
        state(index)
    path.with_name("index.db-sealed").unlink()
    with audited(path) as index:
        assert index.last_id() >= 4


def test_what_waits_no_more_may_name_what_is_gone(tmp_path: Path) -> None:
    """It does not, but nothing would come of it: whatever waits again is put behind a gate anew."""
    path = tmp_path / "index.db"
    with audited(path) as index:
        _something_of_all(index)
    path.with_name("index.db-sealed").unlink()
    with closing(sqlite.connect(path)) as connection:
        for what in ("gate_id = 99 WHERE instance_id = 3", "plan_id = 99 WHERE instance_id = 4"):
            connection.execute(f"UPDATE delivery SET {what}")
            assert connection.changes() == 1
    Index.open(path).close()


def test_an_index_with_nothing_in_it_is_sound(tmp_path: Path) -> None:
    for _ in range(2):
        with audited(tmp_path / "index.db"):
            pass
        (tmp_path / "index.db-sealed").unlink()


# Of version 3 on: 5 is behind a gate of its study, of which some is behind that of a schedule and
# some was let through; what was remembered of a study that is over, and a gate with nothing behind.
_GATED = """
INSERT INTO plan VALUES (4, '{"after":"study-complete","quiet":5.0,"schedule":"night"}');
INSERT INTO gate VALUES
    (2, 1, 0, '1.2.3', 4, '1.2.3', 1, 0, 1, 0, 1700000003000000, 1700000003000000),
    (5, 1, 2, 'night', 4, '', 2, 0, 1, 0, 1700000003000000, 1700000003000000),
    (6, 2, 0, '1.2.3', 4, '1.2.3', 0, 1, 0, 4, 1700000003000000, 1700000003000000),
    (7, 2, 2, 'night', 4, '', 1, 0, 0, 0, 1700000003000000, 1700000003000000);
UPDATE delivery SET plan_id = 4, gate_id = 2, due_at = 9100000000000000000
WHERE (instance_id, destination_id) = (10, 1);
UPDATE delivery SET plan_id = 4, gate_id = 5, due_at = 9100000000000000000
WHERE (instance_id, destination_id) = (7, 1);
INSERT INTO tally VALUES (15, 1, 2, 200);
"""
# Of version 4 on: 7 is still to be committed at vna.
_UNCOMMITTED = """
UPDATE delivery SET state = 6, commitment_id = 3 WHERE (instance_id, destination_id) = (7, 2);
UPDATE instance SET unsettled = unsettled + 1 WHERE id = 7;
UPDATE tally SET n = n - 1, bytes = bytes - 100 WHERE (what, key) = (3, 2);
INSERT INTO tally VALUES (6, 2, 1, 100);
INSERT INTO commitment VALUES (3, 2, 1700000003000000, 1700000003000000, NULL, 1, 1, NULL);
"""


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_an_older_index_is_sound(tmp_path: Path, version: int) -> None:
    """Nobody noted what it was when it was closed, so it is looked at."""
    path = tmp_path / "index.db"
    if version == 1:
        index_version_1.build(path)
        index_version_1.add_duplicates(path)
    else:
        index_version_2.build(path)
    with closing(sqlite.connect(path)) as connection:
        for number in range(2, version):
            STEPS[number](connection)
            connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute(_GATED if version > 2 else "")
        connection.execute(_UNCOMMITTED if version > 3 else "")
    with audited(path) as index:
        waiting = {7: READY} if version < 3 else {}
        assert [n for n in leased(index, "pacs", now=T0 + 100) if n < 9] == list(waiting)
        _open_all(index)
        add(index, (ref(20), meta(20, "pacs", study="1.2.3", plan=WHOLE)), generation=3)
