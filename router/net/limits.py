"""How limits on sending are written: bandwidths, by the hour or not, rates, priorities.

Owns the forms of these settings.  Must not know the schedules that they name, nor who keeps to
them.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from router.units import parse_bandwidth, parse_rate
from rules.nearest import did_you_mean
from rules.sending import MAX_PRIORITY, PRIORITIES

ELSE = "else"
"""The window that is open when no other of a bandwidth is."""


def by_window(value: object) -> object:
    """A bandwidth that is always the same is one of no window."""
    return value if isinstance(value, Mapping) else {ELSE: value}


def _windows(value: Mapping[str, float]) -> Mapping[str, float]:
    if not value:
        raise ValueError("there is no bandwidth in it", "leave the key out for no limit")
    if ELSE not in value:
        raise ValueError(
            "it has no 'else', the bandwidth of all other hours", "add 'else: unlimited'"
        )
    return value


def parse_priority(value: object) -> int:
    """The number of ``high`` or ``15``; raises ValueError (message, fix)."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text in PRIORITIES:
        return PRIORITIES[text]
    try:
        number = int(text) if isinstance(text, str | int) and not isinstance(text, bool) else None
    except ValueError:
        number = None
    if number is None or abs(number) > MAX_PRIORITY:
        words = ", ".join(PRIORITIES)
        limits = f"a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}"
        fix = did_you_mean(text, PRIORITIES) if isinstance(text, str) else ""
        raise ValueError(f"expected one of {words} or {limits}, not {value!r}", fix)
    return number


BandwidthByHour = Annotated[
    Mapping[str, Annotated[float, BeforeValidator(parse_bandwidth)]],
    BeforeValidator(by_window),
    AfterValidator(_windows),
]
"""Bytes per second by window, which is written as in a schedule, or is the name of one."""
Rate = Annotated[float, BeforeValidator(parse_rate)]
Priority = Annotated[int, BeforeValidator(parse_priority)]
