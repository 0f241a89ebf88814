"""The tables of the index, and the way from an older version of them to this one.

Owns the SQL that defines the database and the steps between its versions.  Must not know what
the rows mean to a delivery; that is `index_add`, `index_deliver` and `index_control`.

Times are whole microseconds since the epoch: exact in JSON, in which batches travel, where a
float would be rounded to 15 digits.  What instances of one association and series have in
common lies once in ``context``, so that an instance's own row is narrow: about thirty to a
page, which is what enqueueing and settling write.

Every index grows at its end, or where the studies lie that are arriving, so that a million rows
cost an enqueue as much as a thousand.  An index of SOP Instance UIDs, which are as good as
random, would not: each new row would read, log and write back a page of its own.  So
``instance_sop`` goes by study first.  Two instances with the same bytes have the same study; and
to find a UID without its study the index is narrow enough to be read through (a number of 64
bits stands in place of the UID).
"""

from collections.abc import Callable
from hashlib import blake2b

from router.spool import sqlite
from router.spool.errors import IndexDamaged, SpoolError

APPLICATION_ID = 0x64636D72  # "dcmr", which `file` shows

Step = Callable[[sqlite.Connection], None]

_VERSION_1 = """
CREATE TABLE meta(
    key TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE destination(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

CREATE TABLE rule(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

-- study_order: id of the first instance that came with this study, 0 without one; the same in
-- all contexts of a study.  The queue is in its order.
CREATE TABLE context(
    id INTEGER PRIMARY KEY,
    study_order INTEGER NOT NULL,
    association TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    source TEXT NOT NULL,
    remote TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    modality TEXT NOT NULL,
    reason TEXT NOT NULL,
    quarantined INTEGER NOT NULL,
    rules_version TEXT NOT NULL
) STRICT;
CREATE INDEX context_study ON context(study_instance_uid) WHERE study_instance_uid <> '';

-- unsettled: how many of its deliveries are READY, HELD or DEAD, or repeat one that is READY or
-- HELD.
-- reason: an operator's, in place of the context's.
CREATE TABLE instance(
    id INTEGER PRIMARY KEY,
    context_id INTEGER NOT NULL,
    study_order INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    data_offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    large INTEGER NOT NULL,
    sop_key INTEGER NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    disposition INTEGER NOT NULL,
    unsettled INTEGER NOT NULL,
    settled_at INTEGER,
    reason TEXT
) STRICT;
CREATE INDEX instance_sop ON instance(study_order, sop_key, crc);
CREATE INDEX instance_context ON instance(context_id);
CREATE INDEX instance_generation ON instance(generation);
CREATE INDEX instance_settled ON instance(settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX instance_held ON instance(disposition) WHERE disposition IN (1, 2);

CREATE TABLE delivery(
    instance_id INTEGER NOT NULL,
    destination_id INTEGER NOT NULL,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    study_order INTEGER NOT NULL,
    due_at INTEGER,
    attempts INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    status INTEGER,
    reason TEXT,
    rule_id INTEGER NOT NULL,
    duplicate_of INTEGER,
    PRIMARY KEY(instance_id, destination_id)
) STRICT, WITHOUT ROWID;
-- What may go now, in the order in which it goes.
CREATE INDEX delivery_ready
    ON delivery(destination_id, priority DESC, study_order, instance_id)
    WHERE state = 0 AND due_at IS NULL;
-- What waits for a time: apart, so that a lease never walks over it.
CREATE INDEX delivery_due ON delivery(destination_id, due_at)
    WHERE state = 0 AND due_at IS NOT NULL;
-- READY, HELD and DEAD by age: the oldest of each, and the lists that people ask for.  The sum
-- keeps SQLite from taking the condition for a range to search, where it has an equal state.
CREATE INDEX delivery_open ON delivery(destination_id, state, instance_id) WHERE state + 0 <= 2;

-- Running counts; see index_types.Tally.  They outlive the rows that they count.
CREATE TABLE tally(
    what INTEGER NOT NULL,
    key INTEGER NOT NULL,
    n INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY(what, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE event(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL,
    count INTEGER NOT NULL
) STRICT;
CREATE TABLE event_instance(
    instance_id INTEGER NOT NULL,
    event_id INTEGER NOT NULL,
    PRIMARY KEY(instance_id, event_id)
) STRICT, WITHOUT ROWID;
"""


# By what they repeat, so that the fate of the one reaches the others.  Before this version what
# repeated another was settled at once, even while that one waited.
_VERSION_2 = """
CREATE INDEX delivery_repeat ON delivery(duplicate_of, destination_id)
    WHERE duplicate_of IS NOT NULL;
UPDATE delivery SET duplicate_of = NULL
WHERE state = 5 AND EXISTS (
    SELECT 1 FROM delivery AS o
    WHERE o.instance_id = delivery.duplicate_of AND o.destination_id = delivery.destination_id
        AND o.state IN (2, 4)
);
WITH waiting(id, n) AS MATERIALIZED (
    SELECT d.instance_id, count(*)
    FROM delivery AS d CROSS JOIN delivery AS o
        ON o.instance_id = d.duplicate_of AND o.destination_id = d.destination_id
    WHERE d.state = 5 AND d.duplicate_of IS NOT NULL AND o.state IN (0, 1)
    GROUP BY d.instance_id
)
UPDATE instance SET unsettled = unsettled + waiting.n, settled_at = NULL
FROM waiting WHERE waiting.id = instance.id;
"""


# Plans, and the gates behind which they keep deliveries back; labels.
#
# plan.name: its text, see router.spool.plan.
# delivery: gate_id is set for one that is READY with the time `index_database.GATED`, for no
# other.  The new columns come last, where a row without them has not a byte more than before.
# gate: kind, see index_gates.  shut: 1, 2 while it is being opened, 0 when it is gone and only
# kept to count the supplements of its study; that of a schedule is deleted instead.  A gate that
# is not gone has deliveries behind it, or had some that an operator took away.
_VERSION_3 = """
ALTER TABLE context ADD COLUMN tags TEXT NOT NULL DEFAULT '';
CREATE TABLE plan(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
ALTER TABLE delivery ADD COLUMN plan_id INTEGER;
ALTER TABLE delivery ADD COLUMN gate_id INTEGER;
CREATE INDEX delivery_gate ON delivery(gate_id, instance_id) WHERE gate_id IS NOT NULL;
-- By plan, what has passed the gates first.
CREATE INDEX delivery_plan ON delivery(destination_id, plan_id, gate_id, instance_id)
    WHERE state = 0 AND plan_id IS NOT NULL;
CREATE TABLE gate(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    plan_id INTEGER NOT NULL,
    study TEXT NOT NULL,
    shut INTEGER NOT NULL,
    supplement INTEGER NOT NULL,
    instances INTEGER NOT NULL,
    earlier INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX gate_key ON gate(destination_id, kind, key, plan_id);
CREATE INDEX gate_shut ON gate(destination_id, kind) WHERE shut > 0;
CREATE INDEX gate_past ON gate(study) WHERE shut = 0;
"""


# What came of attempts at deliveries, by their number at the delivery.  took: microseconds.
# The counts by hour (index_types.Tally) of what an older index has; of what was purged before it
# tells nothing, so they count from the hour after.
_VERSION_4_ATTEMPTS = """
CREATE TABLE attempt(
    instance_id INTEGER NOT NULL,
    destination_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    took INTEGER,
    association TEXT NOT NULL,
    outcome INTEGER NOT NULL,
    status INTEGER,
    reason TEXT,
    PRIMARY KEY(instance_id, destination_id, number)
) STRICT, WITHOUT ROWID;
INSERT INTO tally(what, key, n, bytes)
SELECT 70, received_at / 3600000000, count(*), sum(length) FROM instance GROUP BY 2;
INSERT INTO meta(key, value)
SELECT 'hours_from', CAST(strftime('%s', 'now') AS INTEGER) / 3600 + 1
WHERE EXISTS (SELECT 1 FROM meta WHERE key = 'last_id');
"""
# Transactions of storage commitment that we ask for (PS3.4 annex J).
#
# delivery.commitment_id: the one that an UNCOMMITTED delivery was asked for in; of no meaning in
# another state.
# commitment: due_at is when it is asked for again, NULL once nothing of it is left to answer.
# commitment_uid: one more each time that it is asked for.  commitment_failure: how often what the
# destination took was not committed and sent again.
_VERSION_4_COMMITMENT = """
ALTER TABLE delivery ADD COLUMN commitment_id INTEGER;
CREATE INDEX delivery_uncommitted ON delivery(destination_id, commitment_id, instance_id)
    WHERE state = 6;
CREATE TABLE commitment(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination_id INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,
    due_at INTEGER,
    asked INTEGER NOT NULL,
    instances INTEGER NOT NULL,
    trouble TEXT
) STRICT;
CREATE INDEX commitment_due ON commitment(destination_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX commitment_past ON commitment(asked_at) WHERE due_at IS NULL;
CREATE TABLE commitment_uid(
    uid TEXT PRIMARY KEY,
    commitment_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX commitment_uid_of ON commitment_uid(commitment_id);
CREATE TABLE commitment_failure(
    instance_id INTEGER NOT NULL,
    destination_id INTEGER NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY(instance_id, destination_id)
) STRICT, WITHOUT ROWID;
"""
# Commitments that peers asked of us; see index_promises.  verdict: 0 when it is committed, else a
# Failure Reason; NULL when it is not decided.
_VERSION_4_PROMISES = """
CREATE TABLE promise(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_uid TEXT NOT NULL,
    remote TEXT NOT NULL,
    peer_ae TEXT NOT NULL,
    own_ae TEXT NOT NULL,
    association TEXT NOT NULL,
    digest TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    state INTEGER NOT NULL,
    due_at INTEGER,
    attempts INTEGER NOT NULL,
    reason TEXT NOT NULL,
    items INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    settled_at INTEGER
) STRICT;
CREATE UNIQUE INDEX promise_transaction ON promise(remote, transaction_uid);
CREATE INDEX promise_due ON promise(due_at) WHERE state <= 1;
CREATE TABLE promise_item(
    promise_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    verdict INTEGER,
    PRIMARY KEY(promise_id, number)
) STRICT, WITHOUT ROWID;
"""
# instance.keep: seconds that the rules keep it once it is settled, 0 when they do not say.  The
# settled ones by that, then by age: what is kept for a month is not walked over every second.
_VERSION_4_RETENTION = """
ALTER TABLE instance ADD COLUMN keep INTEGER NOT NULL DEFAULT 0;
DROP INDEX instance_settled;
CREATE INDEX instance_settled ON instance(keep, settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX instance_discarded ON instance(settled_at)
    WHERE disposition = 3 AND settled_at IS NOT NULL;
"""
# Destinations to which an operator lets nothing go; their names need not be configured any more.
_VERSION_4_PAUSES = """
CREATE TABLE pause(
    destination TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


# Which peer a destination is, since when (since: for people to see), and the last instance that
# may have gone to another of that name.
_VERSION_4_PEERS = """
CREATE TABLE peer(
    destination TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    ae_title TEXT NOT NULL,
    since INTEGER NOT NULL,
    after_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


# spent: which members of its plan have had their try, see index_spent.
_VERSION_4_DIVERSION = "ALTER TABLE delivery ADD COLUMN spent INTEGER;"


# sum: of what a destination is told of an instance; NULL in a row of before.  The sum of the
# position is of more figures from here on.
_VERSION_5 = """
ALTER TABLE context ADD COLUMN sum INTEGER;
DELETE FROM meta WHERE key = 'position_sum';
"""


def _create_version_1(connection: sqlite.Connection) -> None:
    run_script(connection, _VERSION_1)


def _create_version_2(connection: sqlite.Connection) -> None:
    run_script(connection, _VERSION_2)


def _create_version_3(connection: sqlite.Connection) -> None:
    run_script(connection, _VERSION_3)


def _create_version_4(connection: sqlite.Connection) -> None:
    for script in (
        _VERSION_4_ATTEMPTS,
        _VERSION_4_COMMITMENT,
        _VERSION_4_PROMISES,
        _VERSION_4_RETENTION,
        _VERSION_4_PAUSES,
        _VERSION_4_DIVERSION,
        _VERSION_4_PEERS,
    ):
        run_script(connection, script)


def _create_version_5(connection: sqlite.Connection) -> None:
    run_script(connection, _VERSION_5)


def _create_version_6(_: sqlite.Connection) -> None:
    """Its pages have sums (`router.spool.sqlite`).  Nothing of the tables is another, but a program
    that writes pages without sums must not open it."""


STEPS: tuple[Step, ...] = (
    _create_version_1,
    _create_version_2,
    _create_version_3,
    _create_version_4,
    _create_version_5,
    _create_version_6,
)
"""Step *n* takes a database of version *n* to *n* + 1; an empty file is version 0.  A step that
has been released is never changed: append another."""


def migrate(connection: sqlite.Connection, steps: tuple[Step, ...] = STEPS) -> int:
    """Bring the database to the newest version, a transaction per step; the version it had.

    Raises SpoolError for a database of a later version than this program knows and IndexDamaged
    for one that is not an index; both are left as they are.
    """
    found = _number(connection, "PRAGMA user_version")
    tables = _number(connection, "SELECT count(*) FROM sqlite_schema")
    if tables and (not found or _number(connection, "PRAGMA application_id") != APPLICATION_ID):
        raise IndexDamaged("the index file is the database of something else")
    if found > len(steps):
        raise SpoolError(
            f"the index has schema version {found}, this program knows up to {len(steps)}: "
            "run the newer version of dcmrouter that made it"
        )
    for version, step in enumerate(steps[found:], start=found + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return found


def _number(connection: sqlite.Connection, sql: str) -> int:
    return int(connection.execute(sql).get)


def run_script(connection: sqlite.Connection, script: str) -> None:
    """Run statements inside the open transaction, which ``executescript`` would commit."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite.is_complete(statement):
            connection.execute(statement)
            statement = ""
    if statement.strip():
        raise ValueError(f"unfinished statement: {statement.strip()[:60]}")


def sop_key(uid: str) -> int:
    """64 bits that stand for a SOP Instance UID in ``instance_sop``.

    Equal keys are told apart by the UID in the row.
    """
    return int.from_bytes(
        blake2b(uid.encode(errors="replace"), digest_size=8).digest(), signed=True
    )
