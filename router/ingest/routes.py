"""What is recorded of a decided route.

Owns the translation of the rules' options into a delivery's plan.  Must not know what the plan
is for.
"""

from dataclasses import replace
from functools import lru_cache

from router.spool.plan import Plan
from router.spool.record import RouteMeta
from rules.decision import Route
from rules.rule import Keep, Mode, OnRefusal, Send

_AT_ONCE = "at-once"


def route_meta(route: Route) -> RouteMeta:
    """A route as it is stored with the instance."""
    group = (route.mode, route.members, route.keep, route.on_refusal)
    return RouteMeta(route.destination, route.rule, route.priority, _plan(*group, route.send))


@lru_cache(maxsize=4096)  # of few rules, and of the orders of few destinations
def _plan(
    mode: Mode, members: tuple[str, ...], keep: Keep, on_refusal: OnRefusal, send: Send
) -> str:
    """The text of the plan; what has no effect is not in it, so that equal ones read the same."""
    plan = Plan(schedule=send.schedule)
    if len(members) > 1:
        plan = replace(plan, mode=mode, members=members, keep=keep, on_refusal=on_refusal)
    if send.after == _AT_ONCE:
        return plan.to_text()
    wait = send.wait if send.expect else plan.wait
    return replace(
        plan, after=send.after, quiet=send.quiet, expect=send.expect, wait=wait
    ).to_text()
