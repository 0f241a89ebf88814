"""The time zone of this machine, by its name.

Owns where an operating system says it.  A name, not only a distance from UTC, is what rules need.
"""

from collections.abc import Mapping
from pathlib import Path

from rules.window import is_zone

LOCALTIME = Path("/etc/localtime")
TIMEZONE = Path("/etc/timezone")
_DATA_BASE = "/zoneinfo/"


def machine_zone(env: Mapping[str, str]) -> str:
    """A name of the IANA data base, ``UTC`` when it cannot be told.

    ``TZ`` comes first, as everywhere; then the links and files of the usual systems.
    """
    # TZ=:/etc/localtime is widely set: it spares the C library a look at the file at each call.
    written = env.get("TZ", str(LOCALTIME)).removeprefix(":")
    candidates = [_linked(), _written()] if written == str(LOCALTIME) else [_named(written)]
    found = next((name for name in candidates if is_zone(name)), "UTC")
    return "UTC" if found == "Etc/UTC" else found


def _named(text: str) -> str:
    return text.rpartition(_DATA_BASE)[2].removeprefix("posix/")


def _linked() -> str:
    try:
        return _named(str(LOCALTIME.resolve(strict=True)))
    except (OSError, RuntimeError):
        return ""


def _written() -> str:
    try:
        return TIMEZONE.read_text("utf-8")[:100].strip()
    except (OSError, ValueError):
        return ""
