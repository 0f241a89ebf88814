"""Waits and calendars that contradict themselves, or that somebody forgot to go on with.

Owns these checks; nothing else.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime

from router.config.model import Config
from router.config.place import at
from router.net.retry import Retry
from rules.source import Node, Problem


def retries(config: Config, root: Node) -> Iterator[Problem]:
    """What cannot come of `retry` as it is written."""
    for name, remote in config.remotes.items():
        yield from _retry(remote.retry, name, root)


def _retry(retry: Retry, name: str, root: Node) -> Iterator[Problem]:
    surely = retry.cap * (1 - retry.jitter)
    if retry.give_way_after is not None and retry.give_way_after > surely:
        yield at(root, "remotes", name, "retry", "give_way_after").problem(
            f"remotes.{name}.retry.give_way_after is longer than waits are sure to become",
            f"write at most {surely:g}s: retry.cap less the share of retry.jitter",
        )
    if retry.permanent_after > retry.max_attempts:
        yield at(root, "remotes", name, "retry", "permanent_after").problem(
            f"remotes.{name}.retry.permanent_after is more than retry.max_attempts",
            "an instance is dead before that",
        )


def over_for_good(config: Config, root: Node, now: float) -> Iterator[Problem]:
    """Schedules of single dates that are all over; ``now`` in seconds since the epoch."""
    for name, schedule in config.schedules.items():
        windows = schedule.windows("UTC")  # a day more or less does not matter here
        if not windows.dated or windows.spans or windows.holidays is not None:
            continue
        last = max(each.last for each in windows.dated)
        if last < datetime.fromtimestamp(now, UTC).date().toordinal() - 2:
            yield at(root, "schedules", name).problem(
                f"schedule {name!r} never opens again: its last day was {date.fromordinal(last)}",
                "what waits for it waits for ever",
            )


def past_holidays(config: Config, root: Node, now: float) -> Iterator[Problem]:
    """Files of holidays whose dates are all over; ``now`` in seconds since the epoch."""
    today = datetime.fromtimestamp(now, UTC).date().toordinal()
    for name, schedule in config.schedules.items():
        dates = schedule.dates
        if dates.dates and not dates.yearly and max(dates.dates) < today - 1:
            last = date.fromordinal(max(dates.dates))
            yield at(root, "schedules", name, "holidays").problem(
                f"schedule {name!r}: its last holiday was {last}", "add those that are to come"
            )
