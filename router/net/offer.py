"""What a remote is never sent, whatever the rules say.

Owns how SOP classes are written in a remote's settings, and whether an instance's pair of abstract
and transfer syntax may be proposed to it at all.  Must not know associations or queues.
PS3.4 annex B.5, PS3.8 §9.3.2.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from router.dicom.uids import TRANSFER_SYNTAXES, storage_sop_classes, transfer_syntax
from rules.nearest import did_you_mean
from rules.pattern import glob_matcher, is_glob
from rules.uids import is_uid, is_uid_glob, names


def check_sop_class(text: str) -> str:
    """A SOP class as people write it: a UID, a keyword of PS3.6, or a glob over either.

    Raises ValueError (fault, fix) for a name that stands for no class.
    """
    name = text.strip()
    if is_uid(name) or (is_uid_glob(name) and is_glob(name)):
        return name
    if is_glob(name):
        if any(map(glob_matcher(name.lower()), _named())):
            return name
        raise ValueError(f"no SOP class is called like {text!r}", _like(name))
    if name.lower() not in _named():
        raise ValueError(f"no SOP class is called {text!r}", _like(name))
    return name


def sop_class_name(uid: str) -> str:
    """``CT Image Storage (1.2.840.…)``, or the UID alone when it has no name."""
    name = storage_sop_classes().get(uid)
    return f"{name} ({uid})" if name else uid


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be proposed to a remote.

    ``never``: SOP classes as `check_sop_class` takes them; ``syntaxes``: UIDs of the only transfer
    syntaxes that it gets, None for all.
    """

    never: tuple[str, ...] = ()
    syntaxes: tuple[str, ...] | None = None

    def names(self, uid: str) -> bool:
        """Whether ``never`` has this SOP class."""
        return any(_covers(written, uid) for written in self.never)

    def refuses(self, pair: tuple[str, str]) -> str:
        """Why this pair of abstract and transfer syntax is never proposed; "" when it may be."""
        abstract, syntax = pair
        for written in self.never:
            if _covers(written, abstract):
                return (
                    f"not sent by configuration: never_send of the remote has {written!r}, "
                    f"which is {sop_class_name(abstract)}"
                )
        if self.syntaxes is not None and syntax not in self.syntaxes:
            allowed = ", ".join(map(_short, self.syntaxes))
            return (
                f"stored as {transfer_syntax(syntax).name} ({syntax}), and the remote's "
                f"transfer_syntaxes has only {allowed}; transcoding is not available"
            )
        return ""


@lru_cache(maxsize=4096)
def _covers(written: str, uid: str) -> bool:
    if is_uid(written):
        return written == uid
    if is_uid_glob(written):
        return glob_matcher(written)(uid)
    name = written.lower()
    if is_glob(name):
        matches = glob_matcher(name)
        return any(uid == each and matches(known) for known, each in _named().items())
    return _named().get(name) == uid


@lru_cache(maxsize=1)
def _named() -> Mapping[str, str]:
    """Keywords in lower case, to UIDs; private storage classes by their names without spaces."""
    private = {
        "".join(c for c in name if c.isalnum()).lower(): uid
        for uid, name in storage_sop_classes().items()
    }
    return private | {name.lower(): uid for name, uid in names("SOP Class").items()}


def _like(name: str) -> str:
    fix = did_you_mean(name, names("SOP Class"))
    return fix or "write a UID, or a keyword such as CTImageStorage, or a glob"


def _short(uid: str) -> str:
    known = TRANSFER_SYNTAXES.get(uid)
    return (known.short_name or known.name) if known else uid
