"""Transfer syntaxes, storage SOP classes and our own implementation identity.

Owns which UIDs there are, what they say about encoding, and the names that a configuration
calls them by.  Must not know associations or policies: what to do with a class is decided
elsewhere.

PS3.5 §10 and annex A (transfer syntaxes), PS3.6 annex A (UIDs), PS3.4 annex B.5 (storage
classes), PS3.7 D.3.3.2 (implementation identification).
"""

import csv
import difflib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]  # public, not in __all__

# PS3.5 annex B.2: a UUID as a decimal number under 2.25 needs no registration.
IMPLEMENTATION_CLASS_UID = f"2.25.{uuid.UUID('65187007-33ca-45d4-abf6-a2d4a5c67a42').int}"
IMPLEMENTATION_VERSION_NAME = "DCMROUTER_0_1"

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """How a data set is encoded.

    ``short_name`` is the name for configurations, "" for retired syntaxes that have none;
    ``is_deflated`` means the whole data set, ``is_encapsulated`` its pixel data.
    """

    uid: str
    keyword: str
    name: str
    short_name: str = ""
    is_explicit: bool = True
    is_big_endian: bool = False
    is_deflated: bool = False
    is_encapsulated: bool = False


_JPEG = "1.2.840.10008.1.2.4."
# `jpeg-lossless` is what people mean by it, first-order prediction (.70), which the standard
# makes the default of lossless JPEG; the keyword JPEGLossless is .57 in PS3.6.
_SHORT_NAMES = {
    IMPLICIT_VR_LITTLE_ENDIAN: "implicit-vr-le",
    EXPLICIT_VR_LITTLE_ENDIAN: "explicit-vr-le",
    EXPLICIT_VR_BIG_ENDIAN: "explicit-vr-be",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "deflated",
    "1.2.840.10008.1.2.1.98": "encapsulated-uncompressed",
    "1.2.840.10008.1.2.5": "rle",
    "1.2.840.10008.1.2.8.1": "deflated-image-frame",
    _JPEG + "50": "jpeg-baseline",
    _JPEG + "51": "jpeg-extended",
    _JPEG + "57": "jpeg-lossless-process-14",
    _JPEG + "70": "jpeg-lossless",
    _JPEG + "80": "jpeg-ls-lossless",
    _JPEG + "81": "jpeg-ls-near-lossless",
    _JPEG + "90": "jpeg-2000-lossless",
    _JPEG + "91": "jpeg-2000",
    _JPEG + "92": "jpeg-2000-multi-component-lossless",
    _JPEG + "93": "jpeg-2000-multi-component",
    _JPEG + "94": "jpip",
    _JPEG + "95": "jpip-deflate",
    _JPEG + "100": "mpeg2-main-level",
    _JPEG + "100.1": "mpeg2-main-level-fragmentable",
    _JPEG + "101": "mpeg2-high-level",
    _JPEG + "101.1": "mpeg2-high-level-fragmentable",
    _JPEG + "102": "mpeg4-high-4.1",
    _JPEG + "102.1": "mpeg4-high-4.1-fragmentable",
    _JPEG + "103": "mpeg4-bd-4.1",
    _JPEG + "103.1": "mpeg4-bd-4.1-fragmentable",
    _JPEG + "104": "mpeg4-high-4.2-2d",
    _JPEG + "104.1": "mpeg4-high-4.2-2d-fragmentable",
    _JPEG + "105": "mpeg4-high-4.2-3d",
    _JPEG + "105.1": "mpeg4-high-4.2-3d-fragmentable",
    _JPEG + "106": "mpeg4-stereo-4.2",
    _JPEG + "106.1": "mpeg4-stereo-4.2-fragmentable",
    _JPEG + "107": "hevc-main-5.1",
    _JPEG + "108": "hevc-main-10-5.1",
    _JPEG + "110": "jpeg-xl-lossless",
    _JPEG + "111": "jpeg-xl-recompression",
    _JPEG + "112": "jpeg-xl",
    _JPEG + "201": "htj2k-lossless",
    _JPEG + "202": "htj2k-lossless-rpcl",
    _JPEG + "203": "htj2k",
    _JPEG + "204": "jpip-htj2k",
    _JPEG + "205": "jpip-htj2k-deflate",
}
# JPIP syntaxes carry a reference in place of pixel data; two of them deflate the data set.
_REFERENCED = frozenset(_JPEG + last for last in ("94", "95", "204", "205"))
_DEFLATED = frozenset({DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, _JPEG + "95", _JPEG + "205"})
# Papyrus 3, and the syntax of older GE equipment that swaps the pixels alone.
_GE_IMPLICIT = "1.2.840.113619.5.2"
_IMPLICIT = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.20", _GE_IMPLICIT})
_ENCAPSULATED = frozenset(
    {"1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1"}
)


def _describe(uid: str, keyword: str, name: str) -> TransferSyntax:
    return TransferSyntax(
        uid=uid,
        keyword=keyword,
        name=name,
        short_name=_SHORT_NAMES.get(uid, ""),
        is_explicit=uid not in _IMPLICIT,
        is_big_endian=uid == EXPLICIT_VR_BIG_ENDIAN,
        is_deflated=uid in _DEFLATED,
        is_encapsulated=uid in _ENCAPSULATED or (uid.startswith(_JPEG) and uid not in _REFERENCED),
    )


TRANSFER_SYNTAXES: Mapping[str, TransferSyntax] = MappingProxyType(
    {
        uid: _describe(uid, keyword, name)
        for uid, (name, kind, _, _, keyword) in UID_dictionary.items()
        if kind == "Transfer Syntax"
    }
    | {
        _GE_IMPLICIT: _describe(
            _GE_IMPLICIT,
            "GEPrivateImplicitVRBigEndianPixels",
            "GE Private Implicit VR Little Endian, Big Endian Pixel Data",
        )
    }
)

_BY_NAME = {
    name.lower(): syntax.uid
    for syntax in TRANSFER_SYNTAXES.values()
    for name in (syntax.keyword, syntax.short_name)
    if name
}
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


def is_uid(text: str) -> bool:
    """True for digits and dots of at most 64 characters (PS3.5 §9.1; leading zeros pass)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def transfer_syntax(uid: str) -> TransferSyntax:
    """What is known of a transfer syntax; an unknown or private one is Explicit VR Little
    Endian with encapsulated pixel data, as PS3.5 annex A.4 makes every compressed one."""
    known = TRANSFER_SYNTAXES.get(uid)
    return known or TransferSyntax(uid=uid, keyword="", name=uid, is_encapsulated=True)


def parse_transfer_syntax(text: str) -> str:
    """UID of a transfer syntax by its short name, keyword or UID; private UIDs pass.

    ``jpeg-lossless`` is first-order prediction, 1.2.840.10008.1.2.4.70.  Raises ValueError
    that names the nearest known name.
    """
    name = text.strip()
    if is_uid(name):
        return name
    uid = _BY_NAME.get(name.lower())
    if uid is not None:
        return uid
    short = [syntax.short_name for syntax in TRANSFER_SYNTAXES.values() if syntax.short_name]
    near = difflib.get_close_matches(name.lower(), short, n=1, cutoff=0.4)
    if not near:
        near = difflib.get_close_matches(name.lower(), list(_BY_NAME), n=1, cutoff=0.0)
    raise ValueError(f"unknown transfer syntax {text!r}; the nearest known is {near[0]!r}")


# Classes of the dictionary with "Storage" in their name that no C-STORE to us may carry: the
# directory of a medium, and the two storage commitment classes.
_NOT_STORED = frozenset({"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"})


@lru_cache(maxsize=1)
def storage_sop_classes() -> Mapping[str, str]:
    """UID to name of every known storage SOP class: standard, retired, DICOS and private.

    The first call takes some 50 ms (it reads the tables of the libraries); the mapping is
    read-only and shared.
    """
    # Imported here: only the tables of a large package are wanted, and only once.
    from pynetdicom import AllStoragePresentationContexts, sop_class

    classes: dict[str, str] = {}
    text = resources.files("router.dicom").joinpath("data/storage-classes.csv").read_text("utf-8")
    for row in csv.DictReader(text.splitlines()):
        classes[row["sop_class_uid"]] = row["name"]
    keywords = {str(v): k for k, v in vars(sop_class).items() if isinstance(v, str)}
    for context in AllStoragePresentationContexts:
        uid = str(context.abstract_syntax)
        classes.setdefault(uid, _spaced(keywords.get(uid, uid)))
    for uid, (name, kind, _, retired, _keyword) in UID_dictionary.items():
        if kind == "SOP Class" and "Storage" in name and uid not in _NOT_STORED:
            classes[uid] = f"{name} ({retired})" if retired else name
    return MappingProxyType(classes)


def is_storage(uid: str) -> bool | None:
    """True for a storage SOP class, False for any other UID of the standard, None when the
    UID is unknown (private, or newer than this version)."""
    if uid in storage_sop_classes():
        return True
    return False if uid in UID_dictionary else None


def _spaced(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", keyword)
