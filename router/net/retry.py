"""How failures of a destination are answered: when it is tried again, and when no more.

Owns the settings `retry:` of a remote and their defaults, and which statuses a line of its table
means.  Must not know queues, nor what the gateway makes of a status by itself; that is
`router.forward.verdict`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from router.units import Seconds

StatusFate = Literal["temporary", "permanent", "delivered"]
FailureFate = Literal["temporary", "permanent"]

_PATTERN = re.compile(r"([0-9A-Fa-f]{1,4})([xX]{0,3})")
_MAY_BE_STORED = frozenset({"0001", "0107", "0111", "0116"})
"""Besides B000 to BFFF, those that a peer may answer that has the instance: warnings of PS3.7 Annex
C, and duplicate SOP instance."""


def canonical_status(text: str) -> str:
    """``A7xx`` of ``a7XX``: four hexadecimal digits, of which the last may be ``x`` for any.

    Raises ValueError (message, fix).
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or len(match[1]) + len(match[2]) != 4:
        fix = "write four hexadecimal digits, as in A700, or A7xx for all of A7"
        raise ValueError(f"{text!r} is no status of a C-STORE-RSP", fix)
    found = match[1].upper() + match[2].lower()
    if found == "0000":
        raise ValueError("0000 is success, and cannot mean anything else", "leave it out")
    return found


def _statuses(table: Mapping[str, StatusFate]) -> Mapping[str, StatusFate]:
    found: dict[str, StatusFate] = {}
    for text, fate in table.items():
        status = canonical_status(text)
        if status in found:
            raise ValueError(f"{status} stands here twice", "leave one out")
        if fate == "delivered" and not (status.startswith("B") or status in _MAY_BE_STORED):
            raise ValueError(
                f"{status} does not say that the destination has the instance: taken for "
                "delivered, it would be lost",
                "make it 'temporary' or 'permanent'",
            )
        found[status] = fate
    return found


class Failures(BaseModel):
    """``retry.failures`` of a remote: what it means that no answer came at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rejected: FailureFate = Field(
        default="temporary",
        description="The association was rejected, and not as transient. `temporary`: the "
        "destination is down, nothing is charged with an attempt. `permanent`: so many rejections "
        "in a row as `permanent_after` says, and what waits there is dead.",
    )
    timeout: FailureFate = Field(
        default="temporary",
        description="The destination was silent in the middle of a message. `temporary`: an "
        "attempt is charged. `permanent`: the instance in hand is dead, so that somebody looks "
        "before it is sent twice.",
    )
    aborted: FailureFate = Field(
        default="temporary", description="The same for an A-ABORT in the middle of a message."
    )
    broken: FailureFate = Field(
        default="temporary",
        description="The same for a connection that was closed or reset, and for an answer that "
        "breaks the protocol.",
    )


class Retry(BaseModel):
    """``retry:`` of a remote: capped exponential back-off with full-range jitter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Seconds = Field(default=2.0, gt=0, description="Wait after the first failure.")
    factor: float = Field(default=2.0, ge=1, description="Growth of the wait per failure.")
    cap: Seconds = Field(default=300.0, gt=0, description="Longest wait.")
    jitter: float = Field(
        default=0.25, ge=0, le=1, description="Share of the wait drawn at random."
    )
    max_attempts: int = Field(
        default=50, ge=1, description="Temporary failures of one instance before it is dead."
    )
    max_age: Seconds | None = Field(
        default=None,
        gt=0,
        description="Age, from its reception on, at which an instance is dead that fails or that "
        "waits for a destination that is down; never by age when absent. Time that it waited for "
        "its study or a schedule counts; what waits for one, or for a remote that is paused, is "
        "left alone. After an operator's retry it is counted from there until the first attempt.",
    )
    permanent_after: int = Field(
        default=1,
        ge=1,
        description="Attempts after which an answer of A9xx or Cxxx, or a failure that `failures` "
        "calls permanent, is final; until then it is tried again.",
    )
    statuses: Annotated[Mapping[str, StatusFate], AfterValidator(_statuses)] = Field(
        default_factory=dict,
        description="What a status of the C-STORE-RSP means, where it is not what the gateway "
        "makes of it: `A7xx: permanent`, `C123: temporary`, `0111: delivered`. `x` at the end "
        "stands for any digit, the line that says most counts. `temporary` is tried again, "
        "`permanent` is dead at once, `delivered` is for 0111, 0001, 0107, 0116 and Bxxx only.",
    )
    failures: Failures = Field(default_factory=Failures)
    give_way_after: Seconds | None = Field(
        default=None,
        gt=0,
        description="Once the wait before the next attempt of an instance is as long as this, "
        "another member of its `failover`, `balance` or `first_available` may have it, though this "
        "one is up. Others have all that waits once this one has been paused, or shut by its "
        "schedule, for as long. Never when absent.",
    )

    def fate_of(self, status: int) -> StatusFate | None:
        """What `statuses` says of a status, the longest prefix first; None when nothing."""
        if not self.statuses or not status:
            return None
        digits = f"{status:04X}"
        for known in (4, 3, 2, 1):
            fate = self.statuses.get(digits[:known] + "x" * (4 - known))
            if fate is not None:
                return fate
        return None
