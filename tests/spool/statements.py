"""What SQLite is asked meanwhile, with the values in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from router.spool.index import Index


@contextmanager
def statements(index: Index) -> Iterator[list[str]]:
    """Filled as they come."""
    seen: list[str] = []

    def note(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        seen.append(cursor.expanded_sql)
        return True

    connection = index._db._connection
    connection.exec_trace = note
    try:
        yield seen
    finally:
        connection.exec_trace = None
