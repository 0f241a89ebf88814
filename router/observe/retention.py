"""What leaves the spool and why, as it is counted and logged.

Owns the lines about purges, the archive, and the refusal of instances for want of room; each is
told when it changes, not for as long as it lasts.
"""

import time
from collections.abc import Callable
from typing import Any

from router.observe.counters import Counters
from router.spool.archive_task import Moved
from router.spool.marks import Run
from router.spool.upkeep import Upkeep


class Retention:
    """Hears of every step of the keeper and every batch of the archivist."""

    def __init__(
        self, counters: Counters, log: Any, clock: Callable[[], float] = time.time
    ) -> None:
        self.archive_trouble: str | None = None
        """Why the last batch failed, or that some folders cannot be written to; "" when neither;
        None before the first batch."""
        self._whole_trouble = ""
        self._counters = counters
        self._log = log
        self._clock = clock

    def upkeep(self, before: Upkeep | None, upkeep: Upkeep) -> None:
        """A step was done; ``before`` is the one before it."""
        if upkeep.purged:
            self._counters.on_purged(upkeep.why, upkeep.purged, upkeep.bytes)
        was = before.refusal if before is not None else ""
        if bool(upkeep.refusal) != bool(was):
            if upkeep.refusal:
                self._log.error("no instances are accepted (A700)", why=upkeep.refusal)
            else:
                self._log.warning("instances are accepted again")
        if upkeep.trouble and (before is None or before.trouble != upkeep.trouble):
            self._log.error("upkeep of the spool", why=upkeep.trouble)
        if upkeep.run is not None:
            self._tell_run(upkeep.run)

    def _tell_run(self, run: Run) -> None:
        oldest = run.oldest
        told = {
            "instances": run.count,
            "mib": run.bytes >> 20,
            "in_use": f"{run.share:.1%}",
            "oldest_kept": "none"
            if oldest is None
            else f"settled {max(0.0, self._clock() - oldest) / 3600:.1f} h ago",
        }
        if run.ended:
            self._log.info("purged down to the low mark", **told)
        else:
            self._log.warning(
                "above the low mark, and nothing settled is left to purge: what is in use is "
                "waiting for its destinations, or not the gateway's",
                **told,
            )

    def archived(self, moved: Moved) -> None:
        """A batch was moved to the archive, or was not."""
        before, self._whole_trouble = self._whole_trouble, moved.trouble
        self.archive_trouble = moved.trouble or (
            f"{moved.behind} folders cannot be written to" if moved.behind else ""
        )
        if moved.count:
            self._counters.on_purged("archived", moved.count, moved.bytes)
            self._log.info("moved to the archive", instances=moved.count, mib=moved.bytes >> 20)
        for why in moved.unreadable:
            self._log.error("an instance cannot be archived, and stays in the spool", why=why)
        for why in moved.put_back:
            self._log.error(
                "a folder of the archive cannot be written to: what belongs there stays in the "
                "spool, and all else goes on",
                why=why,
            )
        for folder in moved.back:
            self._log.warning("a folder of the archive can be written to again", folder=folder)
        if moved.trouble and moved.trouble != before:
            self._log.error(
                "the archive cannot be written to: settled instances stay in the spool",
                why=moved.trouble,
            )
        elif before and not moved.trouble:
            self._log.warning("the archive can be written to again")
