"""Whether a destination may take something from its queue now.

Owns the two reasons that lie with us: its schedule is shut, and somebody paused it.  Must not know
the queue, nor whether the peer answers.  Pure: takes seconds since the epoch.
"""

from dataclasses import dataclass
from typing import Literal

from rules.window import Windows

_LOOK = 60.0
"""Windows are of the wall clock, which may be set: no timer for them runs longer, in seconds."""
_LONG = 86400.0
"""For so long it is believed that no change is near, which is dear to find out."""


@dataclass(frozen=True, slots=True)
class Hours:
    """``schedule:`` of a remote: when it may be sent to.

    ``closing`` says what becomes of what is in flight when it shuts; instances of priority
    ``urgent`` or more are sent while it is shut too, none with None.
    """

    schedule: str
    windows: Windows
    closing: Literal["finish", "stop"] = "finish"
    urgent: int | None = None


class Permit:
    """What holds was found out by the last `look`.

    ``least`` is the priority that an instance needs, None when every one may go.  ``until`` is
    when the schedule opens, None when it is open, never opens or there is none.
    """

    def __init__(self, hours: Hours | None) -> None:
        self._hours = hours
        self._looked_at = 0.0
        self._holds_until = 0.0
        self.paused = ""
        self.shut = False
        self.until: float | None = None

    def configure(self, hours: Hours | None) -> None:
        """Takes on another schedule, from the next `look` on."""
        self._hours = hours
        self._holds_until = 0.0

    def look(self, now: float) -> None:
        """Finds out whether the schedule is open, if that may have changed."""
        if self._hours is None:
            self.shut, self.until = False, None
        elif not self._looked_at <= now < self._holds_until:
            windows = self._hours.windows
            change = windows.next_change(now)
            self.shut = not windows.open_at(now)
            self.until = change if self.shut else None
            self._looked_at = now
            self._holds_until = now + _LONG if change is None else change

    def next_look(self, now: float) -> float | None:
        """Seconds until `look` may find something else; None when it will not."""
        return None if self._hours is None else max(0.0, min(self._holds_until - now, _LOOK))

    @property
    def least(self) -> int | None:
        """See above; where `nothing` holds it says nothing."""
        return self._hours.urgent if self._hours is not None and self.shut else None

    @property
    def nothing(self) -> bool:
        """Whether no instance may go, however urgent."""
        return bool(self.paused) or (self.shut and self.least is None)

    def allows(self, priority: int) -> bool:
        """Whether an instance of this priority may go."""
        return not self.nothing and (self.least is None or priority >= self.least)

    @property
    def stops(self) -> bool:
        """Whether what is in flight and may not go is to be cut off: as its schedule says."""
        return self.shut and self._hours is not None and self._hours.closing == "stop"

    @property
    def why(self) -> str:
        """What stands in the way, in words for an operator; "" when nothing does."""
        if self.paused:
            return f"paused: {self.paused}"
        if self.shut and self._hours is not None:
            urgent = "" if self.least is None else f", but for priority {self.least} and more"
            return f"schedule {self._hours.schedule} is shut{urgent}"
        return ""
