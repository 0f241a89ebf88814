"""Settings of storage commitment as SCP; the one place of their defaults."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from router.net.commitment import switched
from router.net.settings import AETitle
from router.units import Seconds


class CommitmentSettings(BaseModel):
    """``commitment:`` in the configuration: what we promise to those who send to us."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: Literal["safe", "delivered", "committed"] = Field(
        default="safe",
        description="When an instance is committed: `safe` once it is here, on the disk; "
        "`delivered` once its destinations have taken it; `committed` once they have committed it "
        "themselves.",
    )
    destinations: tuple[str, ...] = Field(
        default=(),
        description="Remotes whose copies count, for `delivered` and `committed`: an instance has "
        "to be at each of them that it was routed to, and to one at least. All of its "
        "destinations when absent.",
    )
    local: tuple[AETitle, ...] = Field(
        default=(), description="AE titles of the local AEs that offer it; all when absent."
    )
    answer: Literal["new-association", "same-association"] = Field(
        default="new-association",
        description="Where the report goes: to `host` and `port` of the remote that asked, or on "
        "its own association while that is open, and only then to the remote.",
    )
    delay: Seconds = Field(
        default=1.0,
        description="Time between a request and its report on a new association: some modalities "
        "listen only after they have released.",
    )
    grace: Seconds = Field(
        default=60.0,
        description="How long an instance that is not known here may still arrive before it is "
        "reported as failed (0112H).",
    )
    wait: Seconds = Field(
        default=12 * 3600.0,
        description="How long `delivered` and `committed` wait for the destinations before an "
        "instance is reported as failed (0110H).",
    )
    first: Seconds = Field(
        default=10.0, gt=0, description="Wait after the first report that failed; it doubles."
    )
    cap: Seconds = Field(default=600.0, gt=0, description="Longest wait between two reports.")
    max_age: Seconds = Field(
        default=24 * 3600.0,
        gt=0,
        description="How long a report is tried before it is given up, counted from the request "
        "and, where it applies, `wait`.",
    )


CommitmentSetting = Annotated[CommitmentSettings | None, BeforeValidator(switched)]
"""``true`` is the defaults, ``false`` is none."""
