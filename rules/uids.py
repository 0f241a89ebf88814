"""SOP classes and transfer syntaxes by the names that people write.

Owns the names; the UIDs and keywords are those of PS3.6 annex A, from pydicom's dictionary.
"""

import re
from typing import Literal

from pydicom._uid_dict import UID_dictionary

from rules.pattern import glob_matcher, is_glob

UIDKind = Literal["SOP Class", "Transfer Syntax"]

# A test holds these against the names that `router` gives the same syntaxes: the floors let neither
# import the other. `jpeg-lossless` is what people mean by it, first-order prediction.
SHORT_NAMES = {
    "implicit-vr-le": "1.2.840.10008.1.2",
    "explicit-vr-le": "1.2.840.10008.1.2.1",
    "explicit-vr-be": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "encapsulated-uncompressed": "1.2.840.10008.1.2.1.98",
    "rle": "1.2.840.10008.1.2.5",
    "deflated-image-frame": "1.2.840.10008.1.2.8.1",
    "jpeg-baseline": "1.2.840.10008.1.2.4.50",
    "jpeg-extended": "1.2.840.10008.1.2.4.51",
    "jpeg-lossless-process-14": "1.2.840.10008.1.2.4.57",
    "jpeg-lossless": "1.2.840.10008.1.2.4.70",
    "jpeg-ls-lossless": "1.2.840.10008.1.2.4.80",
    "jpeg-ls-near-lossless": "1.2.840.10008.1.2.4.81",
    "jpeg-2000-lossless": "1.2.840.10008.1.2.4.90",
    "jpeg-2000": "1.2.840.10008.1.2.4.91",
    "jpeg-2000-multi-component-lossless": "1.2.840.10008.1.2.4.92",
    "jpeg-2000-multi-component": "1.2.840.10008.1.2.4.93",
    "jpip": "1.2.840.10008.1.2.4.94",
    "jpip-deflate": "1.2.840.10008.1.2.4.95",
    "mpeg2-main-level": "1.2.840.10008.1.2.4.100",
    "mpeg2-main-level-fragmentable": "1.2.840.10008.1.2.4.100.1",
    "mpeg2-high-level": "1.2.840.10008.1.2.4.101",
    "mpeg2-high-level-fragmentable": "1.2.840.10008.1.2.4.101.1",
    "mpeg4-high-4.1": "1.2.840.10008.1.2.4.102",
    "mpeg4-high-4.1-fragmentable": "1.2.840.10008.1.2.4.102.1",
    "mpeg4-bd-4.1": "1.2.840.10008.1.2.4.103",
    "mpeg4-bd-4.1-fragmentable": "1.2.840.10008.1.2.4.103.1",
    "mpeg4-high-4.2-2d": "1.2.840.10008.1.2.4.104",
    "mpeg4-high-4.2-2d-fragmentable": "1.2.840.10008.1.2.4.104.1",
    "mpeg4-high-4.2-3d": "1.2.840.10008.1.2.4.105",
    "mpeg4-high-4.2-3d-fragmentable": "1.2.840.10008.1.2.4.105.1",
    "mpeg4-stereo-4.2": "1.2.840.10008.1.2.4.106",
    "mpeg4-stereo-4.2-fragmentable": "1.2.840.10008.1.2.4.106.1",
    "hevc-main-5.1": "1.2.840.10008.1.2.4.107",
    "hevc-main-10-5.1": "1.2.840.10008.1.2.4.108",
    "jpeg-xl-lossless": "1.2.840.10008.1.2.4.110",
    "jpeg-xl-recompression": "1.2.840.10008.1.2.4.111",
    "jpeg-xl": "1.2.840.10008.1.2.4.112",
    "htj2k-lossless": "1.2.840.10008.1.2.4.201",
    "htj2k-lossless-rpcl": "1.2.840.10008.1.2.4.202",
    "htj2k": "1.2.840.10008.1.2.4.203",
    "jpip-htj2k": "1.2.840.10008.1.2.4.204",
    "jpip-htj2k-deflate": "1.2.840.10008.1.2.4.205",
}
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_GLOB = re.compile(r"[0-9.*?]+")


def is_uid(text: str) -> bool:
    """Digits and dots, 64 characters at most (PS3.5 §9.1), leading zeros let pass."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def is_uid_glob(text: str) -> bool:
    return _UID_GLOB.fullmatch(text) is not None


def names(kind: UIDKind) -> dict[str, str]:
    """Every known name of the kind, to its UID: keywords, and our short names of syntaxes."""
    known = {
        entry[4]: uid for uid, entry in UID_dictionary.items() if entry[1] == kind and entry[4]
    }
    return known | SHORT_NAMES if kind == "Transfer Syntax" else known


def resolve(kind: UIDKind, text: str) -> tuple[str, ...]:
    """The UIDs that a UID, a name or a glob over names stands for; () when there are none.

    A UID stands for itself whether it is known or not, since private ones are common. Letter
    case does not count in names.
    """
    if is_uid(text):
        return (text,)
    known = {name.lower(): uid for name, uid in names(kind).items()}
    name = text.lower()
    if is_glob(name):
        matches = glob_matcher(name)
        return tuple(sorted({uid for candidate, uid in known.items() if matches(candidate)}))
    return (known[name],) if name in known else ()
