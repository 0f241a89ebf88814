"""What couriers have in hand while the queue behind them changes.

Owns which of that is not to be sent again as it was leased, should it come back unsent.  Must not
know why the queue changed.
"""

from collections.abc import Collection

from router.forward.board import Board
from router.forward.courier import Courier


class Recall:
    """An instance that came back is asked for anew, at once when an operator changed the queue.

    When the queue was put to rest, as a window closed, it stays on the board, where nothing takes
    it from and nothing leases it anew, until the queue is put to rest again.
    """

    def __init__(self, board: Board, couriers: Collection[Courier]) -> None:
        self._board = board
        self._couriers = couriers
        self._stale: set[int] = set()
        self._awaited: set[int] = set()
        self._back: set[int] = set()

    def changed(self) -> None:
        """An operator changed the queue."""
        self._stale = self._in_hand()
        self.release()

    def rested(self) -> None:
        """The queue was put to rest."""
        self._awaited = self._in_hand()
        self.release()

    def _in_hand(self) -> set[int]:
        return {number for courier in self._couriers for number in courier.held}

    def release(self) -> None:
        """The board is cleared: what waited or came back may be leased again."""
        self._board.clear()
        self._board.settled(self._back)
        self._back.clear()

    def stale(self, number: int) -> bool:
        """Whether it was in hand when an operator changed the queue; tells it once."""
        known = number in self._stale
        self._stale.discard(number)
        return known

    def kept(self, number: int) -> bool:
        """Whether it is kept now, as it was in hand when the queue was put to rest."""
        if number not in self._awaited:
            return False
        self._awaited.discard(number)
        self._back.add(number)
        return True
