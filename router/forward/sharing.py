"""What one association of a destination may carry: anything, one study, or one instance.

Owns which study an association is opened for, and that no two have the same one.  Must not know
how associations are opened, nor what becomes of instances.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from router.forward.board import Board
from router.net.pool import Pool, Proposal

AssociationPer = Literal["study", "instance"] | None


class Sharing:
    """``pools`` gives all whose associations may be at work; ``per`` is as configured."""

    def __init__(
        self, board: Board, pools: Callable[[], Iterable[Pool]], per: AssociationPer
    ) -> None:
        self._board = board
        self._pools = pools
        self._opening: str | None = None
        self.per = per

    @property
    def taken(self) -> set[str]:
        """Studies that have an association, or are about to: another one leaves them alone."""
        if self.per != "study":
            return set()
        taken = set[str]().union(*(pool.studies for pool in self._pools()))
        if self._opening is not None:
            taken.add(self._opening)
        return taken

    @property
    def content(self) -> bool:
        """Whether all that waits is for associations that are at work already."""
        return self.per == "study" and not self._board.pairs(self.taken)

    def pairs(self) -> list[Proposal]:
        """Distinct pairs of what a further association could carry, the most urgent first."""
        return self._board.pairs(self.taken)

    def narrow(
        self, wanted: Sequence[Proposal], *, least_tried: bool
    ) -> tuple[list[Proposal], str | None]:
        """What of ``wanted`` a new association is for, and the study that it is for alone.

        ``least_tried``: of the studies with the first of ``wanted`` the one whose instance has had
        the fewest attempts, else the most urgent.
        """
        if self.per == "instance":
            return list(wanted[:1]), None
        if self.per is None:
            return list(wanted), None
        study = self._board.study_for(wanted[0], self.taken, least_tried=least_tried)
        if study is None:
            return list(wanted), None
        its = self._board.pairs_of(study)
        return [pair for pair in wanted if pair in its], study

    @contextmanager
    def opening(self, study: str | None) -> Iterator[None]:
        """While an association for that study is being opened."""
        self._opening = study
        try:
            yield
        finally:
            self._opening = None

    def outranked(self, study: str | None) -> bool:
        """Whether something more urgent than all of ``study`` waits for an association."""
        return study is not None and self._board.outranked(study, self.taken)
