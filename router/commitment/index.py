"""The index, to those who ask for commitment.

Owns the way of their calls to the index's thread.  Must not know what is asked, nor when.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from router.spool.index_commitments import (
    Commitments,
    Committed,
    Name,
    Refusal,
    Transaction,
    Uncommitted,
)
from router.spool.index_thread import Thread


class CommitmentIndex:
    """`router.spool.index_commitments.Commitments`, each call run where the index lives.

    ``commitments()`` gives the present ones.  Any call may raise SpoolError; then nothing was
    changed.
    """

    def __init__(
        self,
        commitments: Callable[[], Commitments],
        thread: Thread,
        *,
        accepted_at_once: int = 2000,
    ) -> None:
        self._index = commitments
        self._thread = thread
        self._accepted_at_once = accepted_at_once

    async def uncommitted(self, destination: str, most: int) -> Uncommitted:
        """What a destination has still to be asked."""
        return await self._thread.run(self._index().uncommitted, destination, most)

    async def waiting_at(self) -> Sequence[str]:
        """Destinations that have UNCOMMITTED deliveries."""
        return await self._thread.run(self._index().waiting_at)

    async def ask(
        self, destination: str, uid: str, limit: int, at: float, due_at: float
    ) -> Transaction | None:
        """Makes a transaction of what is in none."""
        return await self._thread.run(self._index().ask, destination, uid, limit, at, due_at)

    async def ask_again(
        self, destination: str, uid: str, at: float, due_at: float
    ) -> Transaction | None:
        """The first transaction that is due."""
        return await self._thread.run(self._index().ask_again, destination, uid, at, due_at)

    async def note(self, number: int, due_at: float, trouble: str) -> None:
        """When it is to be asked again, and what stood in the way."""
        await self._thread.run(self._index().note, number, due_at, trouble)

    async def answer(
        self,
        uid: str,
        committed: Iterable[Name],
        refused: Mapping[Name, Refusal],
        *,
        at: float,
        most: Mapping[str, int],
        words: str,
    ) -> Committed:
        """What the destination says of a transaction."""
        return await self._thread.run(
            self._index().answer, uid, committed, refused, at=at, most=most, words=words
        )

    async def give_up(self, destination: str, made_before: float, reason: str, at: float) -> int:
        """Those of the oldest transaction that was made before a time are DEAD."""
        return await self._thread.run(self._index().give_up, destination, made_before, reason, at)

    async def accept(self, destination: str, reason: str, at: float) -> int:
        """Some become DELIVERED without proof; how many."""
        return await self._thread.run(
            self._index().accept, destination, reason, at, self._accepted_at_once
        )
