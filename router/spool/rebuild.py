"""Brings the index up to what the spool holds, at start.

Owns what becomes of each record past the index's position: added, moved, or held because its
bytes are damaged.  Blocking; on the index's thread.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.spool.index_types import AddResult
from router.spool.record import InstanceMeta, Position, Ref
from router.spool.recovery import Damage, Recovered
from router.spool.spool import Spool

_BATCH = 1000


class RebuildIndex(Protocol):
    """What rebuilding needs of the index."""

    def indexed_position(self) -> Position | None:
        """Behind the last record that is in the index."""

    def last_id(self) -> int:
        """The largest id that ever was."""

    def known(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that are in the index."""

    def add(
        self,
        entries: Sequence[tuple[Ref, InstanceMeta]],
        position: Position,
        *,
        suppress_duplicates: bool,
        same_bytes: Callable[[Ref, Ref], bool],
    ) -> AddResult:
        """More instances, and the position behind them."""

    def move(self, refs: Sequence[Ref]) -> None:
        """New places of instances."""


@dataclass(slots=True)
class Report:
    """What was found past the index's position; `damage` has a line for each trouble."""

    added: int = 0
    moved: int = 0
    last_id: int = 0
    damage: list[str] = dataclasses.field(default_factory=list)


def rebuild(spool: Spool, index: RebuildIndex, *, suppress_duplicates: bool) -> Report:
    """Read every record past the index's position into the index.

    A record that was copied by compaction updates the place of its instance; of one that the
    index does not know any more the copy is left out, unless the index is new and knows nothing.
    A record whose data set is damaged is added, held, with the reason: it is never served, and
    never forgotten.  Raises SpoolError.
    """
    position = index.indexed_position()
    report = Report(last_id=index.last_id())
    batch: list[Recovered] = []

    def flush() -> None:
        if batch:
            _add(spool, index, batch, report, position is None, suppress_duplicates)
            batch.clear()

    for found in spool.recover(position):
        if isinstance(found, Damage):
            report.damage.append(
                f"segment {found.segment}: {found.length} bytes at {found.offset}: {found.what}"
            )
            continue
        report.last_id = max(report.last_id, found.ref.id)
        if found.damage:
            report.damage.append(f"instance {found.ref.id}: {found.damage}")
        batch.append(found)
        if len(batch) >= _BATCH:
            flush()
    flush()
    return report


def _add(
    spool: Spool,
    index: RebuildIndex,
    batch: list[Recovered],
    report: Report,
    index_is_new: bool,
    suppress_duplicates: bool,
) -> None:
    known = index.known([found.ref.id for found in batch])
    entries: dict[int, tuple[Ref, InstanceMeta]] = {}
    moves: dict[int, Ref] = {}
    for found in batch:
        ref = found.ref
        if found.moved and (ref.id in known or ref.id in entries):
            if not found.damage:
                moves[ref.id] = ref
        elif not found.moved or index_is_new:
            entries[ref.id] = (ref, _held(found) if found.damage else found.meta)
    result = index.add(
        list(entries.values()),
        batch[-1].end,
        suppress_duplicates=suppress_duplicates,
        same_bytes=spool.same_bytes,
    )
    index.move(list(moves.values()))
    report.added += result.added
    report.moved += len(moves)


def _held(found: Recovered) -> InstanceMeta:
    return dataclasses.replace(
        found.meta,
        disposition="hold",
        quarantined=True,
        reason=f"damaged in the spool: {found.damage}; if its sender got no answer it sends again",
        routes=(),
    )
