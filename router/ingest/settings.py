"""Settings of the Storage SCP; the one place of their defaults."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class StorageSettings(BaseModel):
    """``storage:`` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sop_classes: tuple[str, ...] | None = Field(
        default=None,
        description="Storage SOP classes to accept, by keyword or UID; all of them when absent.",
    )
    unknown_sop_classes: Literal["accept", "refuse"] = Field(
        default="accept",
        description="What to do with private classes and those newer than this version.",
    )
    unparsable: Literal["quarantine", "refuse"] = Field(
        default="quarantine",
        description="A data set that cannot be parsed: keep, acknowledge and hold it, "
        "or answer C000.",
    )
    mismatched_class: Literal["keep", "refuse"] = Field(
        default="keep",
        description="SOP Class UID of the data set differs from that of the C-STORE-RQ: "
        "keep it as sent, or answer A900.",
    )
    duplicates: Literal["suppress", "send"] = Field(
        default="suppress",
        description="The same SOP Instance UID with the same bytes again: keep and acknowledge "
        "it without sending it to where it went before, or send it again.",
    )
