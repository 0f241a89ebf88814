"""Settings of the proof that a remote keeps what it took; the one place of their defaults."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from router.units import Seconds


class Commitment(BaseModel):
    """``commitment:`` of a remote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confirm: Literal["commitment", "find"] = Field(
        default="commitment",
        description="How it proves that it keeps an instance. `commitment`: storage commitment "
        "(N-ACTION, and N-EVENT-REPORT in answer). `find`: it lists the instance when it is asked "
        "for the series (C-FIND), for archives that commit nothing.",
    )
    batch: int = Field(default=500, ge=1, le=10_000, description="Instances of one request.")
    after: Seconds = Field(
        default=10.0, description="How long a delivered instance waits for others to be asked with."
    )
    answer_within: Seconds = Field(
        default=3600.0,
        gt=0,
        description="What is not answered within this is asked for again; with `find`, what is not "
        "listed within this counts as refused.",
    )
    linger: Seconds = Field(
        default=5.0,
        le=300,
        description="How long the association of a request is kept for a report on the same one. "
        "A report on another association is taken whenever it comes.",
    )
    resend: int = Field(
        default=2,
        ge=0,
        le=100,
        description="How often an instance is sent again that it took and did not commit, before "
        "it is a dead letter.",
    )
    max_age: Seconds = Field(
        default=7 * 86400.0,
        gt=0,
        description="What is not answered within this, since it was first asked for, becomes a "
        "dead letter.",
    )


def switched(value: object) -> object:
    """``true`` and ``false`` in place of the section."""
    if value is True or value == "true":
        return {}
    if value is False or value == "false":
        return None
    if value is not None and not isinstance(value, dict | BaseModel):
        raise ValueError(f"expected true, false or a mapping, not {value!r}")
    return value


CommitmentSetting = Annotated[Commitment | None, BeforeValidator(switched)]
"""``true`` is the defaults, ``false`` is none."""
