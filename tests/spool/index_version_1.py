"""An index as version 1 of the schema made it.  Written down apart from the program's own SQL,
and never changed: it is what lies on the disks of those who upgrade."""

from pathlib import Path

import apsw

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE destination(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE rule(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE context(
    id INTEGER PRIMARY KEY, study_order INTEGER NOT NULL, association TEXT NOT NULL,
    calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, source TEXT NOT NULL,
    remote TEXT NOT NULL, sop_class_uid TEXT NOT NULL, transfer_syntax_uid TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL, series_instance_uid TEXT NOT NULL, modality TEXT NOT NULL,
    reason TEXT NOT NULL, quarantined INTEGER NOT NULL, rules_version TEXT NOT NULL) STRICT;
CREATE INDEX context_study ON context(study_instance_uid) WHERE study_instance_uid <> '';
CREATE TABLE instance(
    id INTEGER PRIMARY KEY, context_id INTEGER NOT NULL, study_order INTEGER NOT NULL,
    received_at INTEGER NOT NULL, generation INTEGER NOT NULL, offset INTEGER NOT NULL,
    data_offset INTEGER NOT NULL,
    length INTEGER NOT NULL, crc INTEGER NOT NULL, large INTEGER NOT NULL,
    sop_key INTEGER NOT NULL, sop_instance_uid TEXT NOT NULL, disposition INTEGER NOT NULL,
    unsettled INTEGER NOT NULL, settled_at INTEGER, reason TEXT) STRICT;
CREATE INDEX instance_sop ON instance(study_order, sop_key, crc);
CREATE INDEX instance_context ON instance(context_id);
CREATE INDEX instance_generation ON instance(generation);
CREATE INDEX instance_settled ON instance(settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX instance_held ON instance(disposition) WHERE disposition IN (1, 2);
CREATE TABLE delivery(
    instance_id INTEGER NOT NULL, destination_id INTEGER NOT NULL, state INTEGER NOT NULL,
    priority INTEGER NOT NULL, study_order INTEGER NOT NULL, due_at INTEGER,
    attempts INTEGER NOT NULL, updated_at INTEGER NOT NULL, status INTEGER, reason TEXT,
    rule_id INTEGER NOT NULL, duplicate_of INTEGER,
    PRIMARY KEY(instance_id, destination_id)) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_ready ON delivery(destination_id, priority DESC, study_order, instance_id)
    WHERE state = 0 AND due_at IS NULL;
CREATE INDEX delivery_due ON delivery(destination_id, due_at)
    WHERE state = 0 AND due_at IS NOT NULL;
CREATE INDEX delivery_open ON delivery(destination_id, state, instance_id) WHERE state + 0 <= 2;
CREATE TABLE tally(
    what INTEGER NOT NULL, key INTEGER NOT NULL, n INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY(what, key)) STRICT, WITHOUT ROWID;
CREATE TABLE event(
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL,
    action TEXT NOT NULL, detail TEXT NOT NULL, count INTEGER NOT NULL) STRICT;
CREATE TABLE event_instance(
    instance_id INTEGER NOT NULL, event_id INTEGER NOT NULL,
    PRIMARY KEY(instance_id, event_id)) STRICT, WITHOUT ROWID;
"""

# Instance 7 waits for "pacs", has been delivered to "vna"; instance 8 is held.
_ROWS = """
INSERT INTO meta VALUES ('generation', 3), ('offset', 65536), ('last_id', 8);
INSERT INTO destination VALUES (1, 'pacs'), (2, 'vna');
INSERT INTO rule VALUES (1, 'everything');
INSERT INTO context VALUES
    (1, 7, 'a1', 'CT1', 'ROUTER', '10.0.0.7', 'ct', '1.2.840.10008.5.1.4.1.1.2',
     '1.2.840.10008.1.2.1', '1.2.3', '1.2.3.1', 'CT', '', 0, 'r1'),
    (2, 0, 'a1', 'CT1', 'ROUTER', '10.0.0.7', 'ct', '1.2.840.10008.5.1.4.1.1.2',
     '1.2.840.10008.1.2.1', '', '', '', 'no rule matched', 0, 'r1');
INSERT INTO instance VALUES
    (7, 1, 7, 1700000000000000, 3, 4096, 4608, 100, 77, 0, -668177221713340001, '1.2.3.7',
     0, 1, NULL, NULL),
    (8, 2, 0, 1700000001000000, 3, 8192, 8704, 200, 88, 0, 2154012864446134766, '1.2.3.8',
     1, 0, NULL, NULL);
INSERT INTO delivery VALUES
    (7, 1, 0, 0, 7, 1700000060000000, 2, 1700000002000000, 42752, 'A700: no space', 1, NULL),
    (7, 2, 3, 0, 7, NULL, 1, 1700000002000000, 0, NULL, 1, NULL);
INSERT INTO tally VALUES
    (0, 1, 1, 100), (10, 1, 1, 100), (3, 2, 1, 100), (10, 2, 1, 100),
    (20, 0, 1, 100), (21, 0, 1, 200), (30, 0, 2, 300), (60, 3, 2, 300);
"""


def build(path: Path) -> None:
    """Make the file."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL;" + SCHEMA + _ROWS).fetchall()
    connection.execute("PRAGMA application_id = 1684237682")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def add_duplicates(path: Path) -> None:
    """Instance 9 repeats 7 at "pacs", and is settled although 7 waits, as version 1 had it."""
    connection = apsw.Connection(str(path))
    connection.execute("""
        INSERT INTO instance VALUES
            (9, 1, 7, 1700000002000000, 3, 12288, 12800, 100, 77, 0, -668177221713340001,
             '1.2.3.7', 0, 0, 1700000002000000, NULL);
        INSERT INTO delivery VALUES
            (9, 1, 5, 0, 7, NULL, 0, 1700000002000000, NULL, NULL, 1, 7);
        UPDATE tally SET n = n + 1, bytes = bytes + 100 WHERE (what, key) IN (
            VALUES (10, 1), (20, 0), (30, 0), (60, 3));
        INSERT INTO tally VALUES (5, 1, 1, 100);
        UPDATE meta SET value = 9 WHERE key = 'last_id';
    """)
    connection.close()
