"""What a gateway that is killed over and over may say in its log, and what it may not.

Owns the words.  Must not know the kills.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

# What the log says of a record that was cut short, which is what kills do.
_TORN_EVENTS = ("damage in the spool", "upkeep of the spool")
_FALSE_ALARMS = (" is missing, ", "of an earlier time")
"""What no kill leads to: every segment is there."""
_TORN_REASONS = ("CRC-32 is", "damaged description")


def wrong_lines(lines: Iterable[dict[str, Any]]) -> Counter[str]:
    """Errors, tracebacks and false alarms: how often each."""
    return Counter(
        str(line.get("note", line.get("event", line.get("text"))))
        for line in lines
        if "text" in line
        or any(alarm in line.get("note", "") for alarm in _FALSE_ALARMS)
        or (line.get("level") in ("error", "critical") and not is_expected(line))
    )


def is_expected(line: dict[str, Any]) -> bool:
    """Whether it is about records that were cut short, or a reload that came with the stop."""
    if line["event"] == "configuration not reloaded":
        return "is being stopped" in line["problem"]
    about = str(line.get("where", line.get("why")))
    return line["event"] in _TORN_EVENTS and any(reason in about for reason in _TORN_REASONS)
