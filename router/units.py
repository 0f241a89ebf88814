"""Durations, sizes, rates and shares as people write them in the configuration.  Floor 0: pure."""

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_BANDWIDTHS = {
    **{f"{prefix}bit/s": factor / 8 for prefix, factor in (("k", 1e3), ("M", 1e6), ("G", 1e9))},
    **{f"{unit}/s": float(factor) for unit, factor in _SIZES.items() if unit != "B"},
}
_RATES = {"/s": 1.0, "/min": 1 / 60, "/m": 1 / 60, "/h": 1 / 3600}
_UNLIMITED = "unlimited"
LEAST_BANDWIDTH = 1000.0
"""Bytes per second: with less, one piece of a data set takes as long as peers wait for the next."""
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z/]*)\s*")
_SHARE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")
_BARE = re.compile(r"\s*[0-9]+(?:\.[0-9]+)?\s*")


def parse_duration(value: object) -> float:
    """Seconds of ``30``, ``"30s"``, ``"5m"``, ``"1.5h"`` or ``"7d"``.

    Raises ValueError, whose text names the accepted forms.
    """
    return _parse(value, _DURATIONS, "a duration such as 500ms, 30s, 5m, 2h or 7d")


def parse_size(value: object) -> int:
    """Bytes of ``4096``, ``"64KiB"``, ``"4MiB"`` or ``"2GB"``.

    Raises ValueError, whose text names the accepted forms.
    """
    return int(_parse(value, _SIZES, "a size such as 512KiB, 64MiB or 2GB"))


def parse_bandwidth(value: object) -> float:
    """Bytes per second of ``"20Mbit/s"``, ``"500kbit/s"`` or ``"2MB/s"``; inf of ``unlimited``.

    Raises ValueError, whose text names the accepted forms; a bare number is none of them, as
    nobody can tell whether bits or bytes are meant.
    """
    expected = "a bandwidth such as 512kbit/s, 20Mbit/s, 2MB/s or unlimited"
    if value == _UNLIMITED:
        return math.inf
    if isinstance(value, float) and value == math.inf:
        return value
    if isinstance(value, int | float) or (isinstance(value, str) and _BARE.fullmatch(value)):
        raise ValueError(f"expected {expected}, not {value!r}", "say the unit: bits are not bytes")
    found = _parse(value, _BANDWIDTHS, expected)
    if found < LEAST_BANDWIDTH:
        raise ValueError(f"{value!r} is too little to send with", "the least is 8kbit/s")
    return found


def parse_rate(value: object) -> float:
    """Times per second of ``5``, ``"0.5/s"``, ``"30/min"`` or ``"1000/h"``.

    Raises ValueError, whose text names the accepted forms.
    """
    expected = "a rate such as 5/s, 30/min or 1000/h"
    found = _parse(value, _RATES, expected)
    if not found:
        raise ValueError(f"{value!r} would never send anything", "leave it out, or pause the queue")
    return found


def parse_share(value: object) -> float:
    """0.85 of ``"85%"``.

    Raises ValueError, whose text names the accepted form; a bare number is none, as 1 may mean
    all or a hundredth.
    """
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        expected = f"expected a share such as 85%, not {value!r}"
        if isinstance(value, bool) or not _BARE.fullmatch(str(value)):
            raise ValueError(expected)
        number = float(str(value))
        raise ValueError(expected, f"write {number * 100 if number < 1 else number:g}%")
    return float(match[1]) / 100


def _parse(value: object, units: dict[str, float] | dict[str, int], expected: str) -> float:
    if isinstance(value, bool):
        raise ValueError(f"expected {expected}, not {value!r}")
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and (match := _QUANTITY.fullmatch(value)):
        number, unit = match.groups()
        if not unit:
            return float(number)
        if unit in units:
            return float(number) * units[unit]
    raise ValueError(f"expected {expected}, not {value!r}")


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Share = Annotated[float, BeforeValidator(parse_share)]
