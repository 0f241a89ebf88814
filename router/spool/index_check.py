"""Whether the parts of an index agree, looked at after an end that was not clean.

Owns what SQLite's own check leaves out: that compares each table with its trees, not tables with
each other, nor counts with what they count.  A kill while the log is written back, and damage to
that log, leave tables of different times, each sound by itself.  Writes nothing.

An index is made anew for it, and all that it has sent again: so nothing is a disagreement that an
order, a purge, a gate or an older version of the program may leave.  Each tree is walked along no
more than once, two that are in the same order side by side, and where there are few values among
many rows from value to value: a million rows cost a start half a second of processor time.
"""

from collections.abc import Collection

from router.spool.index_database import Database, id_list
from router.spool.index_plans import plans_at
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
    if db.value(_GOES_NOWHERE, int(Disposition.ROUTED)) is not None:
        return "something is routed and has no deliveries"
    if missing := _missing(db, {key for _, key in waiting}):
        return f"something names a {missing} that is not there"
    return ""


def _missing(db: Database, destinations: Collection[int]) -> str:
    """What is named and not there; ``destinations`` are those where something waits."""
    if db.value(_NO_DESTINATION, id_list(destinations)):
        return "destination"
    if db.value(_NO_CONTEXT):
        return "context"
    plans = {plan for number in destinations for plan in plans_at(db, number)}
    if db.value(_NO_PLAN, id_list(plans)):
        return "plan"
    return "gate" if db.value(_NO_GATE) else ""


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
# Both go by the number: for the order's sake SQLite walks along each, side by side.
_GOES_NOWHERE = """
SELECT id FROM instance NOT INDEXED WHERE disposition = ?
EXCEPT SELECT instance_id FROM delivery ORDER BY 1 LIMIT 1
"""
_NO_DESTINATION = """
SELECT EXISTS (
    SELECT 1 FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM destination WHERE id = value)
)
"""
_NO_CONTEXT = """
SELECT EXISTS (
    SELECT 1 FROM (
        SELECT DISTINCT context_id AS n FROM instance INDEXED BY instance_context
    ) WHERE NOT EXISTS (SELECT 1 FROM context WHERE id = n)
)
"""
_NO_PLAN = """
SELECT EXISTS (
    SELECT 1 FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM plan WHERE id = value)
)
"""
# What waits no more may name one that is gone.
_NO_GATE = """
SELECT EXISTS (
    SELECT 1 FROM (
        SELECT DISTINCT gate_id AS n FROM delivery INDEXED BY delivery_gate
        WHERE gate_id IS NOT NULL
    )
    WHERE NOT EXISTS (SELECT 1 FROM gate WHERE id = n AND shut > 0) AND EXISTS (
        SELECT 1 FROM delivery INDEXED BY delivery_gate WHERE gate_id = n AND state = 0
    )
)
"""
