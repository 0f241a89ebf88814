"""Small tables of names, known by heart.

Owns the numbers that stand for names in the rows of the index.
"""

from collections.abc import Iterable

from router.spool.index_database import Database, clean


class Names:
    """A small table of names with numbers, known by heart; such as the destinations."""

    def __init__(self, db: Database, table: str) -> None:
        self._db = db
        self._table = table
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._load()

    def _load(self) -> None:
        # Once by the tree of names, once by the table: under another's number, or name, what waits
        # for the one would go to the other.
        columns = f"json_group_array(json_array(name, id)) FROM {self._table}"
        rows = self._db.json(f"SELECT {columns} INDEXED BY sqlite_autoindex_{self._table}_1")
        ids = dict(rows)
        names = {number: name for name, number in ids.items()}
        table = self._db.json(f"SELECT {columns} NOT INDEXED")
        if sorted(rows, key=str) != sorted(table, key=str) or len(names) != len(rows):
            raise self._db.met_damaged(f"it has a {self._table} under two names or numbers")
        self._ids, self._names = ids, names  # both or, where memory is short, none

    def ensure(self, names: Iterable[str]) -> None:
        """Make sure that each has a number, in a transaction of its own."""
        missing = [name for name in names if clean(name) not in self._ids]
        if missing:
            rows = [[clean(name)] for name in dict.fromkeys(missing)]
            sql = f"INSERT OR IGNORE INTO {self._table}(name) VALUES {{values}}"
            with self._db.transaction():
                self._db.run_rows(sql, rows)
            self._load()

    def id(self, name: str) -> int:
        """Raises KeyError for a name that was never ensured."""
        return self._ids[clean(name)]

    def find(self, name: str) -> int | None:
        return self._ids.get(clean(name))

    def name(self, number: int) -> str:
        return self._names[number]

    def items(self) -> list[tuple[str, int]]:
        return list(self._ids.items())
