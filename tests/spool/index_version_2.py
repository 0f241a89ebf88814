"""An index as version 2 of the schema made it; see `index_version_1`, which it continues.  Never
changed either."""

from pathlib import Path

import apsw

from tests.spool import index_version_1

SCHEMA = (
    index_version_1.SCHEMA
    + """
CREATE INDEX delivery_repeat ON delivery(duplicate_of, destination_id)
    WHERE duplicate_of IS NOT NULL;
"""
)

# "pacs": 7 waits for a time, 9 repeats it, 10 waits, 11 is dead, 12 held by an operator.
# "vna": 7 delivered.  8 is held as a whole.
_ROWS = """
INSERT INTO meta VALUES
    ('generation', 3), ('offset', 65536), ('last_id', 12), ('next_context', 3);
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
     1, 0, NULL, NULL),
    (9, 1, 7, 1700000002000000, 3, 12288, 12800, 100, 77, 0, -668177221713340001, '1.2.3.7',
     0, 1, NULL, NULL),
    (10, 1, 7, 1700000003000000, 3, 16384, 16896, 100, 10, 0, 10, '1.2.3.10', 0, 1, NULL, NULL),
    (11, 1, 7, 1700000004000000, 3, 20480, 20992, 100, 11, 0, 11, '1.2.3.11', 0, 1, NULL, NULL),
    (12, 1, 7, 1700000005000000, 3, 24576, 25088, 100, 12, 0, 12, '1.2.3.12', 0, 1, NULL, NULL);
INSERT INTO delivery VALUES
    (7, 1, 0, 0, 7, 1700000060000000, 2, 1700000002000000, 42752, 'A700: no space', 1, NULL),
    (7, 2, 3, 0, 7, NULL, 1, 1700000002000000, 0, NULL, 1, NULL),
    (9, 1, 5, 0, 7, NULL, 0, 1700000002000000, NULL, NULL, 1, 7),
    (10, 1, 0, 5, 7, NULL, 0, 1700000003000000, NULL, NULL, 1, NULL),
    (11, 1, 2, 0, 7, NULL, 9, 1700000004000000, 49152, 'C000: no', 1, NULL),
    (12, 1, 1, 0, 7, NULL, 0, 1700000005000000, NULL, 'wait', 1, NULL);
INSERT INTO tally VALUES
    (0, 1, 2, 200), (1, 1, 1, 100), (2, 1, 1, 100), (5, 1, 1, 100), (10, 1, 5, 500),
    (3, 2, 1, 100), (10, 2, 1, 100),
    (20, 0, 5, 500), (21, 0, 1, 200), (30, 0, 6, 700), (60, 3, 6, 700);
"""


def build(path: Path) -> None:
    """Make the file."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL;" + SCHEMA + _ROWS).fetchall()
    connection.execute("PRAGMA application_id = 1684237682")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
