"""A life of a spool with small segments, in which anything may happen next."""

from random import Random

from router.spool.index_types import DeliveryState, Disposition, Filter, Outcome
from tests.spool.scenario import Life
from tests.spool.spool_samples import KIB, settings

SIZES = (100, 5000, 12_000, 30_000, 70_000)
_SHARE = 2 / 3


class ShortLife(Life):
    """Large instances among the small ones (they are from 64 KiB on), and one spare segment."""

    settings = settings(segment_size=64 * KIB, large_instance=16 * KIB, spare_segments=1)

    def act(self, random: Random) -> None:
        """Receive, tell the index, deliver, or keep up.  Raises SpoolError."""
        match random.choices("rfdus", (4, 3, 3, 6, 1))[0]:
            case "r":
                self.receive(*random.choices(SIZES, k=random.choice((1, 3))))
            case "f":
                self.feed()
            case "d":
                self._deliver_some(random)
            case "u":
                self.upkeep()
                self.supply()
            case _:
                self.loop.in_thread(self.spool.segments.seal)

    def _deliver_some(self, random: Random) -> None:
        rows = self.index.instances(Filter(), 10_000)
        routed = [row for row in rows if row.disposition is Disposition.ROUTED]
        some = random.sample(routed, int(len(routed) * _SHARE))
        self.truth.delivered |= {row.meta.sop_instance_uid for row in some}
        self.index.settle(
            [Outcome(row.ref.id, "pacs", DeliveryState.DELIVERED, 1.0) for row in some]
        )
