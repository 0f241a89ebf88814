"""Settings of the spool; the one place of their defaults."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from router.units import Bytes, Seconds, Share

_LOW = 0.9
"""Of the high mark, where no low one is given."""


def _folder(value: str) -> str:
    if "\0" in value or not Path(value.strip()).is_absolute():
        raise ValueError(
            f"{value!r} does not begin at the root of the file system",
            "write the whole path, as in folder: /mnt/archive/dcmrouter",
        )
    return value.strip()


class ArchiveSettings(BaseModel):
    """``spool.archive:`` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[str, AfterValidator(_folder)] = Field(
        description="Folder into which settled instances are moved as Part 10 files before they "
        "leave the spool. It must exist: it is never made, so that a file system that is not "
        "mounted is missed. While it cannot be written to, nothing that belongs there leaves the "
        "spool.",
    )
    after: Seconds | None = Field(
        default=None,
        description="How long after its last destination was settled an instance is moved; "
        "`spool.keep_settled` when not given. A rule's `keep` prevails.",
    )


class SpoolSettings(BaseModel):
    """``spool:`` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment_size: Bytes = Field(
        default=64 * 2**20,
        ge=2**20,
        le=4 * 2**30,
        description="Size of a segment file, in which small instances lie together.",
    )
    large_instance: Bytes = Field(
        default=4 * 2**20,
        ge=64 * 2**10,
        description="Instances above this size are streamed to a file of their own; at most a "
        "quarter of segment_size.",
    )
    spare_segments: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Zeroed segments kept ready in the pool: as much may come in a burst at full "
        "speed. All but two are made while little comes in and the disk has room.",
    )
    receive_memory: Bytes = Field(
        default=96 * 2**20,
        ge=4 * 2**20,
        description="Memory for instances that are still arriving; above it they go to files, "
        "and above twice as much C-STORE is answered A700.",
    )
    low_disk: Bytes = Field(
        default=2**30,
        description="Free space under which C-STORE is answered A700; forwarding goes on.",
    )
    max_size: Bytes | None = Field(
        default=None,
        description="Size of the whole spool above which settled instances are purged early, "
        "and C-STORE is answered A700 when there are none.",
    )
    keep_settled: Seconds = Field(
        default=3600.0,
        description="How long an instance is kept after its last destination was settled; the "
        "longest `keep` of the rules that matched it prevails.",
    )
    high_water: Share | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the disk, or of max_size where there is one, in use above which "
        "settled instances are purged whatever their age, the oldest settled first, until "
        "low_water is reached; never one that is not settled. Spare segments do not count as in "
        "use.",
    )
    low_water: Share | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share in use at which such a purge ends; nine tenths of high_water when not "
        "given.",
    )
    archive: ArchiveSettings | None = Field(
        default=None,
        description="Where settled instances are moved instead of being deleted.",
    )
    wipe: bool = Field(
        default=False,
        description="Overwrite a segment with zeros before it is used again.",
    )

    @property
    def marks(self) -> tuple[float, float] | None:
        """High and low water as shares; None when there are none."""
        if self.high_water is None:
            return None
        low = self.low_water
        return self.high_water, self.high_water * _LOW if low is None else low
