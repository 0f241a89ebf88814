"""How SQLite answers: no statement of plans and gates reads a table through."""

import re

import pytest

from router.spool.index import Filter, Index
from router.spool.index_promises import Asked
from router.spool.plan import Plan
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    READY,
    T0,
    add,
    fill,
    meta,
    outcome,
    ref,
)
from tests.spool.statements import statements

_PLAN = Plan(
    mode="failover", members=("pacs", "vna"), after="study-complete", schedule="night"
).to_text()
_TABLES = "delivery|instance|context|gate"
# A search for nothing in particular (the least of a column without an index) is one too.
_READ_THROUGH = re.compile(r"(?:SCAN|SEARCH) (\w+)(?!.*\()")
# Its index holds the gates that are shut alone, all of which are asked for.
_ALLOWED = re.compile(r"SCAN gate USING INDEX gate_shut")


def _use_everything(index: Index) -> None:
    fill(index, range(1, 10), "pacs", plan=_PLAN)
    for n in (10, 11):
        add(index, (ref(n, crc=1), meta(n, "pacs", uid="1", plan=_PLAN, tags=("t",))))
    index.divert("pacs", {"vna"}, [1], T0, 3)
    for gate in index.gates():
        index.open_gate(gate.id, 2)
        index.open_gate(gate.id, 100)
    for gate in index.gates():
        index.open_gate(gate.id, 100)
    index.shut_gate(None, "night", [5], 100)
    index.queue_summary()
    index.queue_list(Filter(destination="pacs"), 5)
    index.queue_list(Filter(destination="pacs", tag="t"), 5)
    index.instance(5)
    index.hasten(Filter(ids=(6,)), at=T0)
    index.hasten(Filter(study="1.2.3"), at=T0)
    index.lease("pacs", 5, T0, [1])
    index.lease("pacs", 5, T0 - 1e6, [1])
    index.next_due("pacs", [1])
    index.settle([outcome(5, "pacs", READY, due_at=T0 + 9), outcome(6, "pacs", DEAD)])
    index.settle([outcome(7, "pacs", DELIVERED), outcome(10, "pacs", DEAD)])
    for n in (12, 13):
        add(index, (ref(n, crc=2), meta(n, "pacs", uid="2")))
    for origin, target in (("pacs", "tele"), ("tele", "pacs")):
        moved = index.redirect(Filter(destination=origin, ids=(12,)), target, at=T0)
        assert moved.count == 1
    index.promises.ask(Asked("2.25.1", "ct", "CT1", "ROUTER", "a1", [("1.2", "1")]), T0, T0)
    index.retry(Filter(destination="pacs"), at=T0)
    index.hold(Filter(destination="pacs"), at=T0)
    index.release(Filter(destination="pacs"), at=T0)
    index.drop(Filter(destination="pacs"), "", at=T0)
    index.purge(T0 + 1e9, 100)


def test_no_statement_reads_a_table_through(index: Index) -> None:
    connection = index._db._connection
    with statements(index) as seen:
        _use_everything(index)
    examined = [
        s for s in dict.fromkeys(seen) if re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)", s)
    ]
    assert len(examined) > 100
    read_through = set()
    for statement in examined:
        names = dict(re.findall(rf"\b({_TABLES})(?: AS (\w+))?", statement))
        aliases = {alias or table for table, alias in names.items()} | set(names)
        aliases |= {a for _, a in re.findall(rf"\b({_TABLES}) AS (\w+)", statement)}
        for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
            found = _READ_THROUGH.match(detail)
            if found and found[1] in aliases and not _ALLOWED.match(detail):
                read_through.add((detail, statement[:300]))
    assert read_through == set()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT max(attempts) FROM delivery AS d",
        "SELECT count(attempts) FROM delivery AS d",
        "SELECT instance_id FROM delivery AS d WHERE attempts > 5",
    ],
)
def test_what_reads_a_table_through_would_be_seen(index: Index, statement: str) -> None:
    """That the words of SQLite are still those that the test above looks for."""
    (row,) = index._db._connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    found = _READ_THROUGH.match(row[-1])
    assert found is not None
    assert found[1] == "d"
