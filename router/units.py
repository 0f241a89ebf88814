"""Durations and sizes as people write them in the configuration.  Floor 0: pure."""

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
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


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
