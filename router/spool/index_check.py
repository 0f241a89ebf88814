"""Whether the parts of an index agree, looked at after an end that was not clean.

Owns what SQLite's own check leaves out: that compares each table with its trees, not tables with
each other, nor counts with what they count.  A kill while the log is written back, and damage to
that log, leave tables of different times, each sound by itself.  Read from indexes where there
are any, so it costs little beside that check.  Writes nothing.
"""

from router.spool.index_database import Database
from router.spool.index_types import KEEPING_STATES, DeliveryState, Disposition, Tally


def disagreement(db: Database) -> str:
    """What does not agree, "" when all does."""
    counted = {(what, key): n for what, key, n in db.json(_COUNTED, int(Tally.GENERATION)) if n}
    records = {(int(Tally.GENERATION), key): n for key, n in db.json(_RECORDS)}
    if {at: n for at, n in counted.items() if at[0] == Tally.GENERATION} != records:
        return "it counts other records than it has"
    waiting = {(Tally.STATE + state, key): n for key, state, n in db.json(_WAITING)}
    states = {Tally.STATE + state for state in KEEPING_STATES}
    if {at: n for at, n in counted.items() if at[0] in states} != waiting:
        return "it counts other deliveries than it has"
    if db.value(_GOES_NOWHERE, int(Disposition.ROUTED)):
        return "something is routed and has no deliveries"
    for what, statement in _MISSING.items():
        if db.value(statement):
            return f"something names a {what} that is not there"
    return ""


_COUNTED = f"""
SELECT json_group_array(json_array(what, key, n)) FROM tally
WHERE what = ? OR what BETWEEN {int(Tally.STATE)} AND {Tally.STATE + max(DeliveryState)}
"""
_RECORDS = """
SELECT json_group_array(json_array(generation, n)) FROM (
    SELECT generation, count(*) AS n FROM instance INDEXED BY instance_generation
    GROUP BY generation
)
"""
_WAITING = """
SELECT json_group_array(json_array(destination_id, state, n)) FROM (
    SELECT destination_id, state, count(*) AS n FROM delivery INDEXED BY delivery_open
    WHERE state + 0 <= 2 GROUP BY destination_id, state
    UNION ALL
    SELECT destination_id, 6, count(*) FROM delivery INDEXED BY delivery_uncommitted
    WHERE state = 6 GROUP BY destination_id
)
"""
# Both go by the number: a walk along each.
_GOES_NOWHERE = """
SELECT EXISTS (
    SELECT 1 FROM instance AS i NOT INDEXED
    WHERE disposition = ? AND NOT EXISTS (SELECT 1 FROM delivery WHERE instance_id = i.id)
)
"""
_MISSING = {
    "destination": """
        SELECT EXISTS (
            SELECT 1 FROM (
                SELECT DISTINCT destination_id AS n FROM delivery INDEXED BY delivery_open
                WHERE state + 0 <= 2
            ) WHERE NOT EXISTS (SELECT 1 FROM destination WHERE id = n)
        )
    """,
    "context": """
        SELECT EXISTS (
            SELECT 1 FROM (
                SELECT DISTINCT context_id AS n FROM instance INDEXED BY instance_context
            ) WHERE NOT EXISTS (SELECT 1 FROM context WHERE id = n)
        )
    """,
    "plan": """
        SELECT EXISTS (
            SELECT 1 FROM (
                SELECT DISTINCT plan_id AS n FROM delivery INDEXED BY delivery_plan
                WHERE state = 0 AND plan_id IS NOT NULL
            ) WHERE NOT EXISTS (SELECT 1 FROM plan WHERE id = n)
        )
    """,
    "gate": """
        SELECT EXISTS (
            SELECT 1 FROM (
                SELECT DISTINCT gate_id AS n FROM delivery INDEXED BY delivery_gate
                WHERE gate_id IS NOT NULL
            ) WHERE NOT EXISTS (SELECT 1 FROM gate WHERE id = n AND shut > 0)
        )
    """,
}
