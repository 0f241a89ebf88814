"""Spool and index brought into agreement, before anything is received.

Owns what becomes of an index that is damaged, and what is told of the spool's recovery.  Must not
know who uses either afterwards.  What the records of the spool say is in `router.spool.rebuild`.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index import Index, move_aside
from router.spool.index_thread import Thread
from router.spool.rebuild import MADE_ANEW, rebuild
from router.spool.spool import Spool

_log = structlog.get_logger("app")


async def recover(
    spool: Spool,
    index: Index,
    thread: Thread,
    path: Path,
    *,
    suppress_duplicates: bool,
    anew: Callable[[Index], None],
) -> None:
    """Bring the index up to the spool, and start the spool behind the last number of both.

    An index that turns out to be damaged is closed and moved aside; ``anew`` is given the one that
    was opened in its place at ``path``, and closes it in the end.  Raises SpoolError.
    """
    run = thread.run
    try:
        report = await run(rebuild, spool, index, suppress_duplicates=suppress_duplicates)
    except IndexDamaged as error:
        with contextlib.suppress(SpoolError):
            await run(index.close)
        index = await run(_new_index, path, error)
        anew(index)
        report = await run(rebuild, spool, index, suppress_duplicates=suppress_duplicates)
    if report.anew:
        # Nobody says so where its file was deleted, or is on a disk that is not mounted.
        _log.warning(MADE_ANEW, instances=report.anew)
    for line in report.damage[:100]:
        _log.error("damage in the spool", where=line)
    if report.added or report.damage:
        _log.info(
            "spool recovered",
            added=report.added,
            moved=report.moved,
            damaged=len(report.damage),
        )
    await run(spool.start, report.last_id)


def open_index(path: Path) -> Index:
    """The index; one that is damaged is moved aside, to be rebuilt from the spool."""
    try:
        return Index.open(path)
    except IndexDamaged as error:
        return _new_index(path, error)


def _new_index(path: Path, damage: IndexDamaged) -> Index:
    """An empty index in place of the damaged one, which is moved aside."""
    aside = move_aside(path, f"damaged-{int(time.time())}")
    _log.error(
        "the index is damaged: it is moved aside and rebuilt from the spool; no instance is lost, "
        "what was delivered before may be sent again",
        why=str(damage),
        moved_to=str(aside),
    )
    return Index.open(path)
