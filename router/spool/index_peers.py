"""Which peer each destination is, and from when.

Owns the table ``peer``.  A name may stand for another host one day: what the host of before was
given, the one of now does not have, so it makes nothing a duplicate.
"""

from collections.abc import Hashable, Mapping

from router.spool.index_database import Database, clean, microseconds, sum_of

Peer = tuple[str, int, str]
"""Host, port and AE title."""


class Peers:
    """Behind `Index.take_peers`.  Keeps all of it in memory."""

    def __init__(self, db: Database) -> None:
        self._db = db
        rows = db.json(_ALL)
        self._written = {name: tuple(rest) for name, *rest in rows}
        told = db.value("SELECT value FROM meta WHERE key = 'peers_sum'")
        self._doubtful = told is not None and told != _sum(self._written)
        """These are not what was written: each destination may have been another until now."""
        self._noted: dict[str, Peer] = {name: (host, port, ae) for name, host, port, ae, _ in rows}
        self._present = dict(self._noted)
        """Written or not."""
        self._after: dict[str, int] = {row[0]: row[4] for row in rows if row[4]}
        self._unwritten: dict[str, int] = {}
        """Since when."""

    def after(self, destination: str) -> int:
        """The last instance that may have gone to another peer of that name; 0 without one."""
        return self._after.get(clean(destination), 0) if self._after else 0

    def is_past(self, destination: str, peer: Hashable) -> bool:
        """Whether this is not the peer that the destination is now; not for None."""
        present = self._present.get(clean(destination))
        return None not in (peer, present) and peer != present

    def take(self, peers: Mapping[str, Peer], at: float, last_id: int) -> list[str]:
        """See `Index.take_peers`."""
        wanted = {
            clean(name): (clean(host), port, clean(ae)) for name, (host, port, ae) in peers.items()
        }
        changed = {n for n, peer in wanted.items() if self._present.get(n, peer) != peer}
        if self._doubtful:
            changed = {*wanted, *self._noted}
        self._present |= wanted
        # By number, not by time: the clock may be set back, and what was under way at the change
        # is told of after it.  Of one that was never known nothing says that it is another.
        self._after |= dict.fromkeys(changed, last_id)  # holds even if it cannot be written
        other = {name for name, peer in wanted.items() if self._noted.get(name) != peer}
        self._unwritten |= dict.fromkeys(other | changed, microseconds(at))
        told = [name for name in self._unwritten if name in changed or name in self._noted]
        if self._unwritten:
            with self._db.transaction():
                self.write()
            self.written()
            self._doubtful = False
        return told

    def write(self) -> None:
        """What is not written yet, into the open transaction: with the first that a peer took, else
        nothing would say after a start that it was another's."""
        if not self._unwritten:
            return
        rows = self._rows()
        self._db.run_rows(
            _NOTE, [[n, *row[:3], self._unwritten[n], row[3]] for n, row in rows.items()]
        )
        self._db.run(_NOTE_SUM, _sum(self._written | rows))

    def _rows(self) -> dict[str, tuple[object, ...]]:
        """What is not written yet."""
        return {n: (*self._present[n], self._after.get(n, 0)) for n in self._unwritten}

    def written(self) -> None:
        """The transaction in which `write` was called is committed."""
        self._written |= self._rows()
        self._noted |= {name: self._present[name] for name in self._unwritten}
        self._unwritten.clear()


def _sum(rows: Mapping[str, tuple[object, ...]]) -> int:
    return sum_of(*((name, *rows[name]) for name in sorted(rows)))


_ALL = """
SELECT json_group_array(json_array(destination, host, port, ae_title, after_id)) FROM peer
"""
_NOTE = """
INSERT OR REPLACE INTO peer(destination, host, port, ae_title, since, after_id) VALUES {values}
"""
_NOTE_SUM = "INSERT OR REPLACE INTO meta(key, value) VALUES ('peers_sum', ?)"
