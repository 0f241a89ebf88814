"""The gateway of `perf.chaos`: its destinations, its rules, and times short enough for a life that
lasts a second.

Owns the configuration; must not know when it is killed.
"""

from typing import Any

STEADY, MOODY, ASLEEP = "steady", "moody", "asleep"
"""The first is always there, and is asked to commit what it took."""
BOTH = (STEADY, MOODY)
EITHER = "either"
"""No destination of its own: what goes there goes to the moody one, or else to the steady one."""
# A life is over before most of the defaults have come to anything.
_COMMITMENT: dict[str, Any] = {
    "after": "200ms",
    "batch": 100,
    "answer_within": "1s",
    "linger": "300ms",
    "resend": 100,
}


def settings(
    ports: dict[str, int], *, segment_size: str, other: bool, archive: str
) -> dict[str, Any]:
    """Small segments and a short retention, so that segments are recycled between the kills.

    With ``other`` it differs in what a reload may change: settled instances go by their age, and
    otherwise by the share of the spool that is in use.  Either way they go to the folder
    ``archive``, but for those that a rule discards.
    """
    retry = {"first": "50ms", "cap": "500ms", "max_attempts": 1_000_000}
    remote = {"host": "127.0.0.1", "associations": 3 if other else 2, "retry": retry}
    commitment = _COMMITMENT | ({"after": "100ms", "batch": 20} if other else {})
    return {
        "remotes": {
            name: {"ae_title": name.upper(), "port": port, **remote}
            | ({"commitment": commitment} if name == STEADY else {})
            for name, port in ports.items()
        },
        "rules": _rules()[::-1] if other else _rules(),
        "spool": {
            "segment_size": segment_size,
            "large_instance": "1MiB",
            "low_disk": "64MiB",
            "archive": {"folder": archive},
            **(_BY_AGE if other else _BY_SHARE),
        },
        # Soon past its associations, a stop comes to closing the spool and the index.
        "network": {"stop_timeout": "500ms"},
        "log": {"format": "json", "level": "warning"},
    }


_BY_AGE: dict[str, Any] = {"keep_settled": "300ms"}
# 64 and 32 MiB: a few lives fill them, and what is not settled may take more.
_BY_SHARE: dict[str, Any] = {
    "keep_settled": "1h",
    "max_size": "64GiB",
    "high_water": "0.1%",
    "low_water": "0.05%",
}


def _rules() -> list[dict[str, Any]]:
    return [
        {
            "name": "most to both",
            "when": {"not": {"Modality": ["US", "CR", "PR"]}},
            "to": list(BOTH),
        },
        {"name": "what nobody wants", "when": {"Modality": "PR"}, "discard": True},
        {"name": "the late ones", "when": {"Modality": "OT"}, "to": ASLEEP},
        {"name": "one of two", "when": {"Modality": "US"}, "to": {"failover": [MOODY, STEADY]}},
        {
            "name": "whole studies",
            "when": {"Modality": "CR"},
            "to": STEADY,
            "send": {"after": "study-complete", "quiet": "1s"},
        },
    ]
