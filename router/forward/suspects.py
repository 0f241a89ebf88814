"""Finds the presentation context for which a peer refuses a whole association.

Owns what is known of each pair of abstract and transfer syntax while associations fail as they
are negotiated: an acceptor that cannot read one proposal drops the request with all the others.
Must not know instances, queues or associations.  PS3.8 §9.3.2.2.

After an association that proposed several pairs has failed, pairs are proposed one by one until
they have been accepted or refused in good order; what fails alone is a suspect and is proposed
alone from then on, so that nothing else falls with it.  What was refused among others for a
reason that need not be its own is proposed alone as well: it may have been one too many.
"""

from collections.abc import Callable, Sequence
from math import inf

from router.net.errors import AssociationRejected, AssociationTimeout, ConnectFailed
from router.net.pool import Association, Connect, Proposal

MEMORY = 600.0
"""Seconds for which pairs that were not proven go one by one, and for which a peer that answered
is known to be there: what fails alone within them fails for its own sake."""
CONTROL: Proposal = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")
"""Verification in Implicit VR Little Endian, which every acceptor can read."""
_LIMIT = 4096
_SERVICE_USER = 1
_AE_TITLE_REASONS = (3, 7)


def may_be_of_a_proposal(error: Exception) -> bool:
    """Whether the failure of an association can come from what it proposed.

    Not so when there was no connection, when the peer has no room for now, or when it knows one
    of the AE titles not (PS3.8 table 9-21).
    """
    if isinstance(error, AssociationRejected):
        of_a_title = error.source == _SERVICE_USER and error.reason in _AE_TITLE_REASONS
        return not (error.transient or of_a_title)
    return not isinstance(error, ConnectFailed)


class Suspects:
    """``now`` is in seconds of any one steady clock."""

    def __init__(self) -> None:
        self._failed: dict[Proposal, float] = {}
        self._proven: set[Proposal] = set()
        self._crowded: dict[Proposal, float] = {}
        self._narrow_until = self._answered_at = -inf
        self._alone_last = self._control_last = False

    def together(self, pair: Proposal, now: float) -> bool:
        """Whether this pair may be proposed along with others."""
        if pair in self._failed or now < self._crowded.get(pair, -inf):
            return False
        return now >= self._narrow_until or pair in self._proven

    def choose(
        self, pairs: Sequence[Proposal], now: float, *, probing: bool, control: bool = True
    ) -> tuple[list[Proposal], bool]:
        """Which of ``pairs``, the most urgent first, the next association is for; if it is alone.

        All that may go together, or one that is to be alone: in turns while the peer answers,
        and when it does not, first what is not known to fail, then what failed longest ago.
        Where nothing waits but what failed, every other probe is for `CONTROL` if ``control``:
        only a peer that answers that shows the others to be at fault.
        """
        trusted = [pair for pair in pairs if self.together(pair, now)]
        doubtful = [pair for pair in pairs if pair not in trusted]
        if not doubtful or (trusted and (probing or self._alone_last)):
            self._alone_last = False
            return trusted, False
        self._alone_last = True
        hopeless = not trusted and all(pair in self._failed for pair in doubtful)
        self._control_last = control and probing and hopeless and not self._control_last
        if self._control_last:
            return [CONTROL], True
        return [min(doubtful, key=lambda pair: self._failed.get(pair, -inf))], True

    def watched(
        self, connect: Connect, clock: Callable[[], float], others: Callable[[], bool]
    ) -> Connect:
        """``connect``, with what comes of it noted here.  With ``others`` that stand, one that is
        not answered in time tells nothing: the peer may be busy with those."""

        async def watched(proposals: Sequence[Proposal]) -> Association:
            try:
                association = await connect(proposals)
            except Exception as error:
                busy = isinstance(error, AssociationTimeout) and others()
                if may_be_of_a_proposal(error) and not busy:
                    self.failed(proposals, clock())
                raise
            doubtful = [pair for pair in proposals if pair in association.doubtful]
            self.stood([pair for pair in proposals if pair not in doubtful], clock())
            if len(proposals) > 1:
                self.crowded(doubtful, clock())
            return association

        return watched

    def failed(self, proposals: Sequence[Proposal], now: float) -> None:
        """An association that proposed these fell before it stood, maybe because of one."""
        if len(proposals) > 1:
            self._narrow_until = now + MEMORY
            self._proven.clear()
            return
        if len(self._failed) >= _LIMIT:
            self._failed.clear()
        self._failed[proposals[0]] = now

    def stood(self, proposals: Sequence[Proposal], now: float) -> None:
        """The peer answered a request that proposed these, so it can read all of them."""
        for pair in proposals:
            self._failed.pop(pair, None)
        if now < self._narrow_until:
            if len(self._proven) >= _LIMIT:
                self._proven.clear()
            self._proven.update(proposals)
        self.answered(now)

    def crowded(self, pairs: Sequence[Proposal], now: float) -> None:
        """These were refused among others, for no reason that lies in themselves."""
        if len(self._crowded) >= _LIMIT:
            self._crowded.clear()
        for pair in pairs:
            self._crowded[pair] = now + MEMORY

    def answered(self, now: float) -> None:
        """The peer is there."""
        self._answered_at = now

    def answered_since(self, began: float) -> bool:
        """Whether the peer answered something after ``began``."""
        return self._answered_at > began

    def to_blame(self, pair: Proposal, now: float) -> bool:
        """Whether what just failed alone failed for its own sake: others did not, lately."""
        return pair in self._failed and now - self._answered_at <= MEMORY

    def forget(self) -> None:
        """Somebody mended the peer, or another one stands behind the name."""
        self._failed.clear()
        self._proven.clear()
        self._crowded.clear()
        self._narrow_until = self._answered_at = -inf
