"""Folders of the archive that cannot be written to, while the others can.

Owns which they are, when each is tried again, and how far the line of what is to be archived was
gone through meanwhile: what belongs to such a folder is passed over where it stands, and of each
only the first that waits is remembered.  Pure; must not know what is wrong with a folder, nor how
anything is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from router.spool.archive_files import Stored, place_of
from router.spool.index_types import InstanceRow

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
ANEW = 600.0
"""Seconds after which the line is gone through from its beginning, though folders are put back: a
rule may keep some for longer, and the clock may be set."""
MOST_FOLDERS = 1000
BETWEEN_TRIES = 3.0
"""Seconds from one folder that still fails to the next that is tried: there may be many, and each
try may take long, while others wait that can be written."""

Place = tuple[float, int]
"""A place in the line: the time of settling and the number of who stands there."""


@dataclass(slots=True)
class _Folder:
    first: Place
    wait: float
    due: float


class PutBack:
    """Asked for every batch.  As long as no folder is put back the oldest ones are always next."""

    def __init__(self) -> None:
        self._folders: dict[Path, _Folder] = {}
        self._taken_back: list[Path] = []
        self._after: Place | None = None
        self._began = 0.0
        self._before: Place | None = None
        self._trying: Path | None = None
        self._next_try = 0.0

    def __len__(self) -> int:
        return len(self._folders)

    def next(self, now: float) -> tuple[Place | None, Path | None]:
        """After whom the next ones are to be looked for, None for the oldest of all, and the
        folder that is due, when only its are wanted."""
        if not self._folders or now - self._began >= ANEW:
            self._after = self._before = None
            self._began = now
        self._trying = None
        due = [(f.due, place) for place, f in self._folders.items() if f.due <= now]
        if not due or now < self._next_try:
            return self._after, None
        self._trying = min(due)[1]
        moment, number = self._folders[self._trying].first
        return (moment, number - 1), self._trying

    def choose(self, page: Sequence[InstanceRow], folder: Path | None) -> list[InstanceRow]:
        """Those of what was found that are to be tried; ``folder`` is as `next` said."""
        if folder is not None:
            batch = [row for row in page if place_of(row).is_relative_to(folder)]
            if not batch:
                self._take_back(folder)
            return batch
        self._before = self._after
        if not self._folders:
            return list(page)
        if page:
            self._after = _where(page[-1])
        return [row for row in page if not self._holds(place_of(row))]

    def tried(self, batch: Sequence[InstanceRow], stored: Stored, now: float) -> list[str]:
        """What came of a batch; why folders are put back that were not before.

        More than it can remember become the trouble of the whole archive in ``stored``.
        """
        done = {*stored.ids, *stored.unreadable}
        if self._trying is not None:
            self._tried_again(stored, now)
        elif stored.trouble:
            self.failed()
        elif stored.put_back and not self._folders:
            self._after, self._began = _where(batch[-1]), now
        told = []
        for place, why in stored.put_back.items():
            if place not in self._folders:
                if len(self._folders) >= MOST_FOLDERS:
                    stored.trouble = f"{why}, as {MOST_FOLDERS} other folders"
                    self.failed()
                    break
                told.append(why)
            first = next(
                row
                for row in batch
                if row.ref.id not in done and place_of(row).is_relative_to(place)
            )
            known = self._folders.get(place)
            wait = known.wait if known is not None else FIRST_WAIT
            self._folders[place] = _Folder(_where(first), wait, now + wait)
        return told

    def failed(self) -> None:
        """Nothing came of a batch: who was in it is not passed over."""
        self._after = self._before

    def _tried_again(self, stored: Stored, now: float) -> None:
        place = self._trying
        if place is None:
            return
        folder = self._folders[place]
        if stored.trouble:
            folder.due = now + folder.wait
        elif place in stored.put_back:
            folder.wait = FIRST_WAIT if stored.ids else min(LONGEST_WAIT, folder.wait * 2)
            self._next_try = now + BETWEEN_TRIES
        else:
            # Perhaps it was the day's folder, and is that of a study in it now, or the reverse.
            self._take_back(place)

    def taken_back(self) -> list[Path]:
        """Those that are put back no more, since this was last asked."""
        back = [place for place in self._taken_back if not self._holds(place)]
        self._taken_back = []
        return back

    def _take_back(self, place: Path) -> None:
        del self._folders[place]
        self._taken_back.append(place)
        # What else waits for it was passed over.
        self._after = self._before = None

    def _holds(self, place: Path) -> bool:
        return place in self._folders or place.parent in self._folders


def _where(row: InstanceRow) -> Place:
    return (row.settled_at or 0.0, row.ref.id)
