"""The hours that tests of schedules go by."""

from datetime import UTC, datetime

from router.forward.permit import Hours
from rules.window import parse_windows
from tests.forward.fakes import House

NOW = datetime.fromtimestamp(1_700_001_000, UTC)  # where virtual time begins: 22:30 UTC
assert (NOW.hour, NOW.minute) == (22, 30)
SHUT = parse_windows(["23:00-23:30"], "UTC")
OPEN = parse_windows(["22:00-23:00"], "UTC")
HALF_AN_HOUR = 1800.0 - NOW.second


def hours(windows: object = SHUT, **options: object) -> Hours:
    return Hours("night", windows, **options)  # type: ignore[arg-type]


def status(house: House, name: str = "pacs"):  # type: ignore[no-untyped-def]
    return house.forwarder.snapshot()[name]
