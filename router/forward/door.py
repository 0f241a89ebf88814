"""How a destination comes by its associations.

Owns the pool, what is suspected of its proposals, and what a failure to associate means.  Must not
know the queue, nor when an association is wanted.
"""

import asyncio
from collections.abc import Callable

from router.forward.parts import Parts
from router.forward.ports import DestinationConfig
from router.forward.sharing import Sharing
from router.forward.suspects import CONTROL, Suspects, may_be_of_a_proposal
from router.forward.verdict import describe_pair, no_context
from router.net.errors import (
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    ConnectFailed,
)
from router.net.pool import Checkout, Pool, Proposal


class Door:
    """``pool`` is the present one; ``crowded()`` tells whether others are at work.

    ``rejected``: how often in a row an association was rejected, and not as transient;
    ``failed_at``: when one could not be had.
    """

    def __init__(
        self, config: DestinationConfig, parts: Parts, crowded: Callable[[], bool]
    ) -> None:
        self._name = parts.name
        self._board = parts.board
        self._breaker = parts.breaker
        self._availability = parts.availability
        self._fates = parts.fates
        self._clock = parts.monotonic
        self._observer = parts.observer
        self._crowded = crowded
        self._logger = parts.log
        self._retired: list[Pool] = []
        self.rejected = 0
        self.failed_at = 0.0
        self.suspects = Suspects()
        self.pool = self._new_pool(config)
        self._offer = config.offer
        self.sharing = Sharing(
            parts.board, lambda: (*self._retired, self.pool), config.association_per
        )

    @property
    def standing(self) -> int:
        """Associations that are open, in the present way or another."""
        return sum(pool.open for pool in (*self._retired, self.pool))

    def retire(self) -> None:
        """No new association in the present way; what is in flight is finished."""
        self.pool.retire()
        self._retired.append(self.pool)

    def renew(self, config: DestinationConfig) -> None:
        """From now on, associations in this way."""
        self.rejected = 0
        self.pool = self._new_pool(config)
        self._offer = config.offer
        self.sharing.per = config.association_per

    def reap(self) -> None:
        """Lets go what has been idle for long enough; see `Pool.next_expiry`."""
        self.pool.reap()
        self._retired = [pool for pool in self._retired if not pool.empty]

    def forget(self) -> None:
        """What was refused and suspected is proposed anew."""
        self.pool.forget_refusals()
        self.suspects.forget()

    async def aclose(self) -> None:
        """Closes everything that can be closed."""
        await asyncio.gather(*(pool.aclose() for pool in (*self._retired, self.pool)))

    async def acquire(self, pool: Pool, token: int, *, probing: bool) -> Checkout | None:
        """An association for what is on the board; None when there is none to be had now.

        With nothing there a probe finds out whether the peer is, and no more.
        """
        self.bury_refused()
        pairs = self.sharing.pairs()
        if not pairs:
            if probing:
                await self._knock(pool, token)
            return None
        now, suspects = self._clock(), self.suspects
        wanted, alone = suspects.choose(
            pairs, now, probing=probing, control=not pool.refused(CONTROL)
        )
        study: str | None = None
        if wanted != [CONTROL]:
            wanted, study = self.sharing.narrow(wanted, least_tried=probing)
        company = not alone and self.sharing.per != "instance"
        try:
            with self.sharing.opening(study):
                checkout = await pool.acquire(
                    wanted, lambda pair: company and suspects.together(pair, now), study
                )
        except Exception as error:
            if not isinstance(error, AssociationError):
                self._logger.exception("no association", destination=self._name)
            suspect = wanted[0] if alone and not probing else None
            if suspect is not None and pool.served(suspect):
                suspect = None  # one that stands has it
            if not self._enough_of_us(pool, error, suspect, now):
                self._not_opened(pool, token, error, suspect)
            return None
        self._had(pool)
        self.bury_refused()
        if checkout is None or wanted == [CONTROL]:
            self._availability.answering(token)
        return checkout

    async def _knock(self, pool: Pool, token: int) -> None:
        """A C-ECHO; one that refuses Verification, and not the association, is there as well."""
        pool.forget_refusal(CONTROL)
        try:
            checkout = await pool.acquire([CONTROL], lambda pair: False)
            if checkout is not None:
                try:
                    await checkout.association.echo()
                finally:
                    pool.release(checkout)
        except AssociationError as error:
            self._not_opened(pool, token, error, None)
        else:
            self._had(pool)
            self._availability.answering(token, weakly=True)

    def bury_refused(self) -> None:
        """What the peer has no presentation context for fails at once, all of it; and what it is
        never to be offered."""
        for pair in self._board.pairs():
            unwanted = self._offer.refuses(pair)
            if not unwanted and not self.pool.refused(pair):
                continue
            reason = unwanted or no_context(pair)
            items = self._board.withdraw(pair)
            self._logger.warning(
                "not for this destination" if unwanted else "refused by the destination",
                destination=self._name,
                instances=len(items),
                reason=reason,
            )
            for item in items:
                self._fates.give_up(item, reason)

    def _had(self, pool: Pool) -> None:
        if pool is self.pool:
            self.rejected = 0

    def _enough_of_us(
        self, pool: Pool, error: Exception, alone: Proposal | None, began: float
    ) -> bool:
        """Whether one more failed since others of ours stand: the peer rejects it, or lets it wait
        until it is done with them, as one does that serves a single association at a time."""
        if isinstance(error, AssociationRejected):
            may_be = alone is None
        elif isinstance(error, ConnectFailed):
            may_be = self.suspects.answered_since(began)
        else:
            may_be = isinstance(error, AssociationTimeout)
        if pool is not self.pool or not may_be or not self._crowded():
            return False
        self.rejected = 0
        self._observer.on_association_failed(self._name, getattr(error, "kind", ""))
        self._logger.info("no more associations taken", destination=self._name, reason=str(error))
        return True

    def _not_opened(self, pool: Pool, token: int, error: Exception, alone: Proposal | None) -> None:
        now, reason = self._clock(), f"internal error: {type(error).__name__}"
        final = isinstance(error, AssociationRejected) and not error.transient
        if pool is self.pool:
            self.rejected, self.failed_at = self.rejected + 1 if final else 0, now
        else:  # of who was called before a reload: it says nothing of whom we call now
            alone = None
        if isinstance(error, AssociationError):
            self._observer.on_association_failed(self._name, error.kind)
            reason = str(error)
        if not (alone and may_be_of_a_proposal(error) and self.suspects.to_blame(alone, now)):
            self._availability.fallen(self._breaker.failed(token, reason, now))
            return
        items = self._board.withdraw(alone)
        what = f"an association for {describe_pair(alone)} alone failed: {reason}"
        self._logger.warning(what, destination=self._name, instances=len(items))
        for item in items:
            self._fates.defer(item, what)

    def _new_pool(self, config: DestinationConfig) -> Pool:
        self._board.fit(config.associations * config.asynchronous_operations)
        self.suspects = Suspects()
        return Pool(
            self.suspects.watched(config.connect, self._clock, lambda: self.pool.open > 0),
            limit=config.associations,
            linger=config.linger,
            clock=self._clock,
            single=config.association_per == "instance",
        )
