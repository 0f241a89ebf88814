"""What is recorded of a route."""

import json

from router.ingest.routes import route_meta
from router.spool.plan import Plan
from rules.decision import Route
from rules.rule import Send


def test_a_plain_route_has_no_plan() -> None:
    meta = route_meta(Route("pacs", "all", 5, members=("pacs",), send=Send(priority=5)))
    assert (meta.destination, meta.rule, meta.priority, meta.plan) == ("pacs", "all", 5, "")


def test_options_that_have_no_effect_are_not_recorded() -> None:
    assert route_meta(Route("pacs", "all", send=Send(quiet=5.0, wait=7.0, expect="vna"))).plan == ""
    waits = route_meta(Route("pacs", "all", send=Send(after="study-complete", wait=7.0))).plan
    assert json.loads(waits) == {"after": "study-complete"}


def test_every_option_is_read_back() -> None:
    send = Send("series-complete", 120.0, "vna", 600.0, "after-hours", 20)
    meta = route_meta(Route("b", "one of two", 20, "balance", ("b", "a"), send))
    assert Plan.from_text(meta.plan) == Plan(
        "balance", ("b", "a"), "series-complete", 120.0, "vna", 600.0, "after-hours"
    )
    assert meta.priority == 20


def test_the_order_of_members_counts() -> None:
    plans = {route_meta(Route("a", "r", 0, "balance", m)).plan for m in (("a", "b"), ("b", "a"))}
    assert len(plans) == 2
