"""``queue drain``: waiting until nothing waits for a destination.

Owns what ends the waiting, and what is told meanwhile.  Changes nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from router.cli.desk import Desk, Json
from router.cli.failures import Failure
from router.cli.known import check_known
from router.cli.output import plural, safe, seconds, until

INTERVAL = 1.0
"""Seconds between two questions."""
_TELL = 10.0
"""Seconds between two lines about it."""


@dataclass(frozen=True, slots=True)
class _Left:
    """What is at a destination now; ``waiting`` counts what is sent or not committed too."""

    waiting: int
    held: int
    dead: int


def drain(
    desk: Desk,
    destination: str,
    limit: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Json:
    """Until nothing waits: how long it took, and what is held or dead there.

    Raises Failure when the time is over, or nothing can go there: paused, or not configured;
    Misuse for a name that nobody knows.
    """
    begun = told = clock()
    before = left = _left(desk, destination)
    if not left.waiting:
        check_known(desk, destination)  # else a slip of the pen would be drained at once
    while left.waiting:
        state, now = _state(desk, destination)
        if state is None:
            raise Failure(
                f"{destination} is not configured: {plural(left.waiting, 'delivery')} would wait "
                "for ever",
                "configure it, or `dcmrouter queue redirect --from NAME --to OTHER`",
            )
        if state["paused"]:
            raise Failure(
                f"{destination} is paused {_by_whom(desk, destination)}; "
                f"{plural(left.waiting, 'delivery')} left",
                f"`dcmrouter queue resume {destination}` first",
            )
        spent = clock() - begun
        if spent >= limit:
            raise Failure(
                f"after {seconds(spent)} {plural(left.waiting, 'delivery')} of "
                f"{before.waiting} still there{_why(state, now)}",
                f"see `dcmrouter queue show -d {destination}`",
            )
        if clock() - told >= _TELL:
            told = clock()
            text = f"{plural(left.waiting, 'delivery')} left{_why(state, now)}"
            click.echo(safe(text), err=True)
        sleep(min(INTERVAL, max(limit - spent, 0.01)))
        left = _left(desk, destination)
    return {
        "destination": destination,
        "drained": True,
        "seconds": clock() - begun,
        "sent": max(before.waiting - left.waiting, 0),
        "held": left.held,
        "dead": left.dead,
    }


def _left(desk: Desk, destination: str) -> _Left:
    numbers: dict[str, int] = {}
    for queue in desk.queues():
        if queue["destination"] == destination:
            numbers[queue["state"]] = queue["instances"]
    waiting = numbers.get("ready", 0) + numbers.get("uncommitted", 0)
    return _Left(waiting, numbers.get("held", 0), numbers.get("dead", 0))


def _state(desk: Desk, destination: str) -> tuple[Json | None, float]:
    status = desk.status()
    found = next((d for d in status["destinations"] if d["name"] == destination), None)
    return found, status["now"]


def _by_whom(desk: Desk, destination: str) -> str:
    return next((in_words(p) for p in desk.pauses() if p["destination"] == destination), "")


def in_words(pause: Json) -> str:
    """Who paused it, and why."""
    because = f": {pause['reason']}" if pause["reason"] else ""
    return f"by {pause['who'] or 'an operator'}{because}"


def _why(state: Json, now: float) -> str:
    if state["opens_at"] is not None:
        return f"; its schedule opens {until(state['opens_at'], now)}"
    if state.get("shut"):
        return f"; {state['shut']}, and does not open again"
    if not state["up"]:
        return f"; it is down: {state['reason']}"
    return f"; {state['limited']}" if state["limited"] else ""
