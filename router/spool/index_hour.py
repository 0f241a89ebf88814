"""The hours by which some counts are kept.

Owns the keys of those counts.  Must not know what is counted.
"""

HOUR = 3600.0
HOURS_KEPT = 24 * 35
"""For so long the counts by hour are kept."""
_DESTINATIONS = 1 << 24


def hour_of(received_at: int) -> int:
    """The hour since the epoch of a time in microseconds."""
    return received_at // 3_600_000_000


def hour_key(hour: int, destination_id: int) -> int:
    """The key of a count by hour and destination."""
    return hour * _DESTINATIONS + destination_id


def of_hour_key(key: int) -> tuple[int, int]:
    """The reverse of `hour_key`."""
    return divmod(key, _DESTINATIONS)
