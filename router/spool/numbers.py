"""Which numbers and generations may have been given out, whatever becomes of the index.

Owns the file ``numbers`` of a spool directory.  An index that is lost takes along how far the
numbers had come, and what lay in a segment is overwritten: were they given again, an older copy of
the index that is put back would take what came since for what it knows already.
"""

import contextlib
from pathlib import Path

from router.spool import system
from router.spool.errors import SpoolError
from router.spool.summed import with_sum, without_sum

NAME = "numbers"
# So many are noted at a time, since each time costs a sync; after a crash the rest is left out.
_NUMBERS = 1 << 16
_GENERATIONS = 1 << 6


class Numbers:
    """Of one spool directory.  Not for two threads at a time; blocking."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self.number = 0
        """No larger one was given to an instance of which anything was written."""
        self.generation = 0
        """No later one was begun."""
        self.trouble = ""
        """Why the file tells nothing though it is there, "" when it does or is not there."""
        self.found = False
        """The file is there and can be read."""

    def load(self) -> None:
        """Read what was noted."""
        try:
            number, generation = map(int, without_sum(self._path.read_text()).split())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self.trouble = f"{NAME}: cannot be read, numbers go on far behind the last: {error}"
            return
        self.number, self.generation = number, generation
        self.found = True

    def reserve(self, number: int, generation: int) -> None:
        """Return when both are durably noted.  Raises SpoolError."""
        if number > self.number or generation > self.generation:
            self._save(
                number + _NUMBERS if number > self.number else self.number,
                generation + _GENERATIONS if generation > self.generation else self.generation,
            )

    def end(self, number: int, generation: int) -> None:
        """Note the last that were given; if that cannot be, the next start leaves some out."""
        if (number, generation) != (self.number, self.generation):
            with contextlib.suppress(SpoolError):
                self._save(number, generation)

    def _save(self, number: int, generation: int) -> None:
        system.replace_file(self._path, with_sum(f"{number} {generation}\n"))
        self.number, self.generation = number, generation
