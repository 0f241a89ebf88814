"""Settings of the spool; the one place of their defaults."""

from pydantic import BaseModel, ConfigDict, Field

from router.units import Bytes, Seconds


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
        default=2, ge=1, le=1024, description="Zeroed segments kept ready in the pool."
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
        description="How long an instance is kept after its last destination was settled.",
    )
    wipe: bool = Field(
        default=False,
        description="Overwrite a segment with zeros before it is used again.",
    )
