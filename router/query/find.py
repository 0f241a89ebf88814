"""Queries to one archive.

Owns a C-FIND from the association to its end: bounds on matches and time, C-CANCEL, and the count
of the instances of a study.  Must not know who asks, nor what for.  PS3.4 §C.4.1, §C.6.2.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.dimse.command import Command
from router.dimse.status import CANCEL, SUCCESS, Service, describe_status
from router.net.errors import AssociationTimeout
from router.net.pool import Proposal
from router.query.identifier import EXPLICIT, IMPLICIT, UNIQUE, Level, Match, Query, decode, encode

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND (PS3.4 §C.6.2)."""
PROPOSALS: tuple[Proposal, ...] = ((STUDY_ROOT, EXPLICIT), (STUDY_ROOT, IMPLICIT))
LONGEST_IDENTIFIER = 256 * 1024
"""Bytes of one match; what archives answer has a few hundred."""
MOST_MATCHES = 10_000
"""Of one query, unless the caller says otherwise."""
_C_FIND_RQ = 0x0020
_LAST_WORDS = 10.0
"""Seconds that a peer has for its last response once it was told to stop."""
_NO_NUMBER = -1


class Asking(Protocol):
    """What a query needs of an association."""

    @property
    def accepted(self) -> Mapping[Proposal, int]: ...

    async def ask(
        self,
        context_id: int,
        field: int,
        sop_class_uid: str,
        identifier: bytes,
        on_match: Callable[[bytes], bool],
        *,
        longest: int,
    ) -> Command: ...


class QueryRefused(Exception):
    """The archive answered, but not with what was asked for.

    ``status`` is the DIMSE status, 0 when something else was wrong.
    """

    def __init__(self, message: str, status: int = SUCCESS) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Found:
    """``complete`` is False when there were more than was wanted."""

    matches: Sequence[Match]
    complete: bool


async def find(
    association: Asking, query: Query, *, most: int = MOST_MATCHES, seconds: float = 60.0
) -> Found:
    """The matches of a query, ``most`` of them at most, within ``seconds``.

    When there are more, or when the time is up, the archive is told to stop; in the latter case it
    is an error.  Raises AssociationError, after which the association is closed, and QueryRefused.
    """
    context_id, syntax = _context(association)
    matches: list[Match] = []
    unreadable: list[str] = []
    stopping = asyncio.Event()

    def on_match(identifier: bytes) -> bool:
        if len(matches) >= most:
            stopping.set()
            return False
        try:
            matches.append(decode(query, identifier, syntax))
        except ValueError as error:
            unreadable.append(str(error))
            stopping.set()
            return False
        return True

    identifier = encode(query, syntax)
    asking = asyncio.ensure_future(
        association.ask(
            context_id, _C_FIND_RQ, STUDY_ROOT, identifier, on_match, longest=LONGEST_IDENTIFIER
        )
    )
    try:
        response = await _answer(asking, stopping, seconds)
    finally:
        if not asking.done():
            asking.cancel()
            await asyncio.wait([asking])
    if unreadable:
        raise QueryRefused(unreadable[0])
    if response is not None and response.status not in (SUCCESS, CANCEL):
        what = describe_status(response.status, Service.FIND)
        if response.error_comment:
            what = f"{what} ({response.error_comment})"
        raise QueryRefused(what, response.status)
    cut_short = response is None or response.status == CANCEL or stopping.is_set()
    return Found(matches, not cut_short)


async def _answer(
    asking: "asyncio.Future[Command]", stopping: asyncio.Event, seconds: float
) -> Command | None:
    """The last response; None from a peer that goes on although it was told to stop."""
    told = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((asking, told), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done() and told.done():
            await asyncio.wait([asking], timeout=min(_LAST_WORDS, seconds))
            return asking.result() if asking.done() else None
    finally:
        told.cancel()
    if asking.done():
        return asking.result()
    raise AssociationTimeout(f"the query was not answered within {seconds:g} s")


def _context(association: Asking) -> tuple[int, str]:
    for proposal in PROPOSALS:
        if proposal in association.accepted:
            return association.accepted[proposal], proposal[1]
    raise QueryRefused("the archive accepts no Study Root queries (C-FIND)")


async def count_instances(
    association: Asking, study: str, series: str = "", *, seconds: float = 60.0
) -> int | None:
    """How many instances of a study, or of a series in it, the archive knows of.

    It is asked for the number; where it does not tell it is asked for the instances and those
    are counted, `MOST_MATCHES` of each series at most.  None when it knows of none.  Raises
    as `find`.
    """
    level: Level = "series" if series else "study"
    key = "NumberOfSeriesRelatedInstances" if series else "NumberOfStudyRelatedInstances"
    keys = {"StudyInstanceUID": study, key: ""}
    if series:
        keys["SeriesInstanceUID"] = series
    found = await find(association, Query(level, keys), most=2, seconds=seconds)
    same = ((keys[UNIQUE[level]],), (), None)  # some leave out what they were told
    told = [match for match in found.matches if match.get(UNIQUE[level]) in same]
    if not told:
        return None
    number = _number(told[0].get(key, ()))
    if number != _NO_NUMBER:
        return number
    members = [series] if series else await _series_of(association, study, seconds)
    total = 0
    for one in members:
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": one, "SOPInstanceUID": ""}
        images = await find(association, Query("image", keys), seconds=seconds)
        total += len({match.get("SOPInstanceUID") for match in images.matches})
    return total


async def list_instances(
    association: Asking, study: str, series: str, *, seconds: float = 60.0
) -> set[str]:
    """SOP Instance UIDs of a series that the archive knows of, `MOST_MATCHES` at most; not those
    of which it says that they are in another.  Raises as `find`."""
    keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": ""}
    found = await find(association, Query("image", keys), seconds=seconds)
    there = {"StudyInstanceUID": ((study,), (), None), "SeriesInstanceUID": ((series,), (), None)}
    uids = (
        match.get("SOPInstanceUID", ())
        for match in found.matches
        if all(match.get(keyword) in told for keyword, told in there.items())
    )
    return {values[0] for values in uids if values}


async def _series_of(association: Asking, study: str, seconds: float) -> list[str]:
    query = Query("series", {"StudyInstanceUID": study, "SeriesInstanceUID": ""})
    found = await find(association, query, seconds=seconds)
    uids = (match.get("SeriesInstanceUID", ()) for match in found.matches)
    return [values[0] for values in uids if values]


def _number(values: tuple[str, ...]) -> int:
    """The number in an IS value, `_NO_NUMBER` for anything else."""
    text = values[0].strip() if len(values) == 1 else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else _NO_NUMBER
