"""Settings that suit known families of systems, each with its reason and where that is from.

Owns the table.  Must not know what the settings do.  A preset is no more than values that were not
written out: what stands in the configuration beside it wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rules.nearest import did_you_mean


@dataclass(frozen=True, slots=True)
class Preset:
    """``values`` as they would be written under the remote; ``source``: who observed it."""

    name: str
    values: Mapping[str, Any]
    reason: str
    source: str


_ROWS = (
    Preset(
        "dcmtk",
        {"associations": 1, "asynchronous_operations": 1},
        "storescp takes one association at a time unless started with --fork, and the next one "
        "waits; DCMTK grants no asynchronous operations.",
        "manual page of storescp, multi-process options; asked with remotes probe (3.6.7)",
    ),
    Preset(
        "ge",
        {"asynchronous_operations": 1},
        "A GE stack drops the connection at the first message after an association request with "
        "the asynchronous operations item.",
        "dcm4che/dcm4che#1120 (implementation class 1.2.840.113619.6.55)",
    ),
    Preset(
        "implicit-only",
        {"transfer_syntaxes": ["implicit-vr-le"], "asynchronous_operations": 1},
        "Old systems know the default transfer syntax alone, the one that all must accept, and "
        "little of what came after it. What is stored in another syntax becomes a dead letter.",
        "PS3.5 §10.1",
    ),
    Preset(
        "one-at-a-time",
        {"associations": 1, "asynchronous_operations": 1},
        "Systems that reject associations at random, transiently or with 'local limit exceeded', "
        "as soon as two stand at once.",
        "fo-dicom/fo-dicom#1387, pydicom/pynetdicom#791",
    ),
    Preset(
        "one-study-per-association",
        {"association_per": "study", "linger": "10s"},
        "Receivers that take the release of the association for the end of the study: it must "
        "carry one study, and not end as soon as the next image is late.",
        "pydicom/pynetdicom#369, #858",
    ),
    Preset(
        "orthanc",
        {"associations": 4, "asynchronous_operations": 1},
        "It works on DicomThreadsCount operations at once, 4 unless changed, and grants no "
        "asynchronous operations.",
        "Orthanc, Configuration.json, DicomThreadsCount; asked with remotes probe",
    ),
    Preset(
        "pynetdicom",
        {"associations": 4, "asynchronous_operations": 1},
        "It takes ten associations at once, from all callers together, and does not implement "
        "asynchronous operations.",
        "pydicom/pynetdicom#236, AE.maximum_associations",
    ),
    Preset(
        "slow-link",
        {
            "associations": 6,
            "asynchronous_operations": 16,
            "linger": "30s",
            "connect_timeout": "30s",
            "negotiation_timeout": "60s",
            "dimse_timeout": "5m",
        },
        "Over a line of 50 ms one message at a time never fills it: many at once, associations "
        "that are kept, and patience while a large one is on its way.",
        "forum of the Conquest DICOM server; PS3.7 §D.3.3.3",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
"""All of them by name."""


def check_preset(name: str) -> str:
    """The name of a preset.  Raises ValueError (fault, fix) when there is none of it."""
    if name not in PRESETS:
        fix = did_you_mean(name, PRESETS) or f"there are {', '.join(PRESETS)}"
        raise ValueError(f"no preset is called {name!r}", fix)
    return name


def with_preset(settings: object) -> object:
    """Settings of a remote as written, and beneath them those of the preset that they name.

    What is no mapping, or names no preset that there is, comes back as it is: validation tells.
    """
    if not isinstance(settings, Mapping):
        return settings
    preset = PRESETS.get(str(settings.get("preset")))
    return settings if preset is None else {**preset.values, **settings}
