"""The account of a time: what was received since then, and where it is now.

Owns the counts by hour, and a look at them and the rows beside the index's own thread: counting
a million rows takes a second, in which the queues go on.  An instance that was purged is counted
by the hour in which it came; so a time is that of a full hour (UTC).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.spool import sqlite
from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index_database import Counts, Database, count, microseconds
from router.spool.index_hour import HOUR, HOURS_KEPT, hour_key, hour_of, of_hour_key
from router.spool.index_schema import STEPS
from router.spool.index_types import DeliveryState, DestinationAccount, Disposition, Tally

_TIMEOUT = 10.0
_PURGED_STATES = range(Tally.HOUR_PURGED_STATE, Tally.HOUR_PURGED_STATE + len(DeliveryState))
_KINDS = (Tally.HOUR_RECEIVED, *(Tally.HOUR_PURGED_DISPOSITION + d for d in Disposition))


@dataclass(frozen=True, slots=True)
class SinceAccount:
    """The same for what was received from ``since`` on, which is a full hour.

    ``purged`` of it are in the spool no more, and counted all the same.  ``known_from`` is None
    unless the counts begin later than was asked for: what came before that is not in it, or,
    where ``since`` is earlier, what of it was purged is not.  A delivery to a destination counts as
    received there.
    """

    since: float
    known_from: float | None
    received: int
    routed: int
    held: int
    quarantined: int
    discarded: int
    purged: int
    destinations: dict[str, DestinationAccount]
    differences: dict[str, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        return not self.differences


def count_purged(db: Database, ids: str, counts: Counts) -> None:
    """Add what goes with these instances to the counts by hour."""
    for hour, disposition, n, size in db.json(_DISPOSITIONS, ids):
        count(counts, Tally.HOUR_PURGED_DISPOSITION + disposition, hour, n, size)
    for hour, destination, state, n, size in db.json(_STATES, ids):
        key = hour_key(hour, destination)
        count(counts, Tally.HOUR_PURGED_STATE + state, key, n, size)


def forget_hours(db: Database, now: int) -> None:
    """Those that are long past, into the open transaction.

    ``now`` is when something was settled; a clock that was ahead then forgets no more than that
    of today does, and what it made forget before is mended.
    """
    today = int(db.value("SELECT CAST(strftime('%s', 'now') AS INTEGER)")) // int(HOUR)
    least = min(hour_of(now), today) - HOURS_KEPT
    for what in _KINDS:
        db.run(_FORGET, int(what), least)
    for what in _PURGED_STATES:
        db.run(_FORGET, what, hour_key(least, 0))
    db.run(_FORGOTTEN, least, today + 1)


def begin_hours(db: Database) -> None:
    """Of what was purged before the next full hour nothing is known: the index is made anew."""
    db.run(_BEGIN)


def account_since(path: Path, since: float) -> SinceAccount:
    """Of what was received from the hour of ``since`` on, or from the first that is counted, all at
    one moment.

    Reads the file by itself, from any thread.  Raises IndexDamaged, or SpoolError for other
    trouble.
    """
    asked = hour_of(microseconds(since))
    with _reading(path) as run:
        meta = dict(run("SELECT key, value FROM meta"))
        # Of what is forgotten the rows that are left would not add up.
        hour = max(asked, meta.get("hours_forgotten", asked))
        names = dict(run("SELECT id, name FROM destination"))
        tallies = run(_TALLIES, int(Tally.HOUR_RECEIVED), hour)
        states = run(_TALLIES, int(Tally.HOUR_PURGED_STATE), hour_key(hour, 0))
        dispositions = dict.fromkeys(Disposition, 0)
        for disposition, n in run(_COUNT_INSTANCES, hour):
            dispositions[Disposition(disposition)] += n
        found = {number: dict.fromkeys(DeliveryState, 0) for number in names}
        for number, state, n in run(_COUNT_DELIVERIES, hour):
            found[number][DeliveryState(state)] += n
    received = purged = 0
    for what, _, n in tallies:
        if what == Tally.HOUR_RECEIVED:
            received += n
        elif what < Tally.HOUR_PURGED_STATE:
            dispositions[Disposition(what - Tally.HOUR_PURGED_DISPOSITION)] += n
            purged += n
    for what, key, n in states:
        found[of_hour_key(key)[1]][DeliveryState(what - Tally.HOUR_PURGED_STATE)] += n
    known_from = max(meta.get("hours_from", 0), hour)
    difference = received - sum(dispositions.values())
    return SinceAccount(
        since=hour * HOUR,
        known_from=known_from * HOUR if known_from > asked else None,
        received=received,
        routed=dispositions[Disposition.ROUTED],
        held=dispositions[Disposition.HELD],
        quarantined=dispositions[Disposition.QUARANTINED],
        discarded=dispositions[Disposition.DISCARDED],
        purged=purged,
        destinations={
            name: DestinationAccount.of_states(sum(found[number].values()), found[number])
            for number, name in sorted(names.items(), key=lambda item: item[1])
            if any(found[number].values())
        },
        differences={"instances": difference} if difference else {},
    )


@contextmanager
def _reading(path: Path) -> Iterator[Callable[..., list[Any]]]:
    """One moment of the file: what runs a statement and gives its rows."""
    try:
        connection = sqlite.connect(path, read_only=True, timeout=_TIMEOUT)
        try:
            connection.execute("BEGIN")
            version = connection.execute("PRAGMA user_version").get
            if version != len(STEPS):
                raise SpoolError(
                    f"index {path}: it has schema version {version}, this program reads "
                    f"{len(STEPS)}"
                )

            def run(sql: str, *parameters: object) -> list[Any]:
                return connection.execute(sql, parameters).fetchall()

            yield run
        finally:
            connection.close()
    except sqlite.Error as error:
        kind = IndexDamaged if sqlite.is_damage(error) else SpoolError
        raise kind(f"index {path}: {error}") from error


_DISPOSITIONS = """
SELECT json_group_array(json_array(hour, disposition, n, size)) FROM (
    SELECT i.received_at / 3600000000 AS hour, i.disposition, count(*) AS n,
        sum(i.length) AS size
    FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
    GROUP BY 1, 2
)
"""
_STATES = """
SELECT json_group_array(json_array(hour, destination_id, state, n, size)) FROM (
    SELECT i.received_at / 3600000000 AS hour, d.destination_id, d.state, count(*) AS n,
        sum(i.length) AS size
    FROM json_each(?) AS j
    CROSS JOIN delivery AS d ON d.instance_id = j.value
    CROSS JOIN instance AS i ON i.id = d.instance_id
    GROUP BY 1, 2, 3
)
"""
_BEGIN = """
INSERT OR REPLACE INTO meta(key, value)
VALUES ('hours_from', CAST(strftime('%s', 'now') AS INTEGER) / 3600 + 1)
"""
_FORGOTTEN = """
INSERT INTO meta(key, value) VALUES ('hours_forgotten', ?1)
ON CONFLICT(key) DO UPDATE SET value = max(min(value, ?2), excluded.value)
"""
_FORGET = "DELETE FROM tally WHERE what = ? AND key < ?"
_TALLIES = "SELECT what, key, n FROM tally WHERE what >= ?1 AND what < ?1 + 20 AND key >= ?2"
_COUNT_INSTANCES = """
SELECT disposition, count(*) FROM instance WHERE received_at / 3600000000 >= ? GROUP BY 1
"""
_COUNT_DELIVERIES = """
SELECT d.destination_id, d.state, count(*)
FROM instance AS i CROSS JOIN delivery AS d ON d.instance_id = i.id
WHERE i.received_at / 3600000000 >= ? GROUP BY 1, 2
"""
