"""Settings of the Storage SCP; the one place of their defaults."""

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydicom.uid import UID

from router.dicom.uids import is_uid, storage_sop_classes
from router.units import Bytes

_BY_KEYWORD = {UID(uid).keyword: uid for uid in storage_sop_classes() if UID(uid).keyword}


def _sop_class(value: str) -> str:
    if is_uid(value):
        return value
    if value in _BY_KEYWORD:
        return _BY_KEYWORD[value]
    near = difflib.get_close_matches(value, _BY_KEYWORD, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"no storage SOP class has the keyword {value!r}{hint}")


SOPClass = Annotated[str, AfterValidator(_sop_class)]


class StorageSettings(BaseModel):
    """``storage:`` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sop_classes: tuple[SOPClass, ...] | None = Field(
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
    max_instance: Bytes = Field(
        default=16 * 2**30,
        ge=2**20,
        description="Longest data set that is taken. A longer one is dropped as it comes and "
        "answered A700 at its end; one that does not end by twice as much ends its association.",
    )
    duplicates: Literal["suppress", "send"] = Field(
        default="suppress",
        description="The same SOP Instance UID with the same bytes, class and transfer syntax "
        "again: keep and acknowledge it without sending it to where it went before, or send it "
        "again. Above 64 MiB it is always sent again, since comparing would hold up the queues. "
        "Once another host, port or AE title stands behind a remote's name, what the one before "
        "was given counts no more: the new one gets everything that comes again.",
    )
