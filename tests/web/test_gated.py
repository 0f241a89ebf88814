"""What waits for a study or a schedule, as the pages and the API show it."""

from dataclasses import replace

import pytest

from router.spool.index_types import DeliveryState, Filter, QueueLine
from router.web import encode
from router.web.page import render
from tests.web.fakes import STATUS, delivery

_LINE = QueueLine(
    "pacs", DeliveryState.READY, 5, 500, 940.0, 0.0, 2, ("study not complete", "schedule <n> shut")
)


def test_the_status_page_says_what_some_wait_for() -> None:
    text = render(replace(STATUS, snapshot=replace(STATUS.snapshot, queues=(_LINE,))))
    assert "2 wait: study not complete, schedule &lt;n&gt; shut" in text
    free = replace(_LINE, gated=0, waits=())
    text = render(replace(STATUS, snapshot=replace(STATUS.snapshot, queues=(free,))))
    assert "2 wait" not in text


def test_a_queue_says_what_some_of_it_waits_for() -> None:
    line = encode.queue_line(_LINE)
    assert (line["gated"], line["waits"]) == (2, ["study not complete", "schedule <n> shut"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", {}),
        ('{"schedule":"night","quiet":5}', {"schedule": "night", "quiet": 5}),
        ("nothing", {"unreadable": "nothing"}),
        ("[1]", {"unreadable": "[1]"}),
    ],
)
def test_a_delivery_says_its_plan(text: str, shown: object) -> None:
    value = encode.delivery(replace(delivery(5), plan=text, waits="study not complete"))
    assert (value["plan"], value["waits"]) == (shown, "study not complete")


def test_a_label_is_a_condition() -> None:
    assert encode.parse_filter({"tag": "night"}, 0.0) == Filter(tag="night")
