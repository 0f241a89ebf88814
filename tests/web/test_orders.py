"""What the control socket takes of orders, and the words for what deliveries wait for."""

from dataclasses import replace

import pytest
import structlog.testing

from router.observe.state import DestinationState
from router.spool.errors import SpoolError
from router.spool.index_types import Delivery, DeliveryState, Filter, Pause
from router.web.page import render
from router.web.standing import Situation, Standing, situation
from tests.web.fakes import STATUS, delivery


@pytest.mark.parametrize(
    ("path", "body", "wrong"),
    [
        ("queue/hasten", {}, "no condition is given"),
        ("queue/hasten", {"destination": "pacs", "author": 5}, "author is text"),
        ("queue/redirect", {"destination": "pacs"}, "to names destinations"),
        ("queue/redirect", {"destination": "pacs", "to": ["a", "b"]}, "to names one destination"),
        ("queue/redirect", {"to": "vna"}, "no condition is given"),
        ("queue/redirect", {"destination": "a", "to": "b", "because": 5}, "because is text"),
        ("queue/redirect", {"destination": "a", "to": "b", "because": " "}, "because is text"),
        ("queue/pause", {}, "destination is a name"),
        ("queue/pause", {"destination": 5}, "destination is a name"),
        ("queue/pause", {"destination": "pacs", "until": "8:00"}, "unknown field 'until'"),
        ("queue/pause", {"destination": "pacs", "because": ""}, "because is text"),
        ("queue/resume", {"destination": ["pacs"]}, "destination is a name"),
        ("queue/resume", {"destination": "pacs", "because": "x"}, "unknown field 'because'"),
        ("instances/resend", {"ids": [1]}, "to names destinations"),
        ("instances/resend", {"to": ["pacs"]}, "no condition is given"),
        ("instances/resend", {"to": ["pacs"], "idds": [1]}, "unknown condition 'idds'"),
        ("instances/reroute", {}, "no condition is given"),
        ("queue/drop", {"destination": "pacs", "study": None}, "study is null"),
    ],
)
async def test_what_cannot_be_ordered(client, gateway, path, body, wrong):
    answer = await client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 400
    assert wrong in answer.json()["error"]
    assert gateway.calls == []


@pytest.mark.parametrize("path", ["queue/pause", "queue/resume"])
async def test_an_order_that_met_a_failing_disk_says_so(client, gateway, path):
    gateway.fail = SpoolError("pacs is paused, but the next start may not know of it: no space")
    with structlog.testing.capture_logs() as log:
        answer = await client.post(f"/api/v1/{path}", json={"destination": "pacs"})
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("pacs is paused, but the next start may not know")
    assert "look at the disk" in answer.json()["fix"]
    assert [line.get("exc_info") for line in log] == [None], "it is no fault of the program"
    assert "no space" in log[0]["error"]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("all=yes", "all is true or false, not 'yes'"),
        ("limit=0", "limit is at least 1"),
        ("limit=-1", "limit is a number"),
        ("everything=true", "unknown parameter 'everything'"),
    ],
)
async def test_commitments_that_cannot_be_listed(client, gateway, path, wrong):
    answer = await client.get(f"/api/v1/commitments?{path}")
    assert answer.status_code == 400
    assert wrong in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [("since=soon", "a duration"), ("sinse=1h", "unknown parameter 'sinse'")],
)
async def test_a_time_that_is_none(client, gateway, path, wrong):
    answer = await client.get(f"/api/v1/account?{path}")
    assert answer.status_code == 400
    assert wrong in answer.json()["error"]
    assert gateway.calls == []


async def test_orders_are_passed_on_with_who_gave_them(client, gateway):
    pacs, eva = {"destination": "pacs"}, {"author": "eva"}
    post = client.post
    answer = await post("/api/v1/queue/hasten", json=pacs | eva)
    assert answer.json()["changed"] == 3
    answer = await post("/api/v1/queue/redirect", json=pacs | eva | {"to": "vna", "because": "x "})
    assert answer.json() == {"count": 3, "bytes": 3000, "left": 1}
    await post("/api/v1/instances/resend", json={"ids": [7], "to": ["a", "b", "a"]} | eva)
    await post("/api/v1/instances/reroute", json={"all": True} | eva)
    assert (await post("/api/v1/queue/pause", json=pacs | eva)).json() == {"changed": True}
    assert (await post("/api/v1/queue/resume", json=pacs)).json() == {"changed": False}
    which = Filter(destination="pacs")
    assert gateway.calls == [
        ("hasten", which, "eva"),
        ("redirect", which, "vna", "x", "eva"),
        ("resend", Filter(ids=(7,)), ("a", "b"), "eva"),
        ("reroute", Filter(), "eva"),
        ("pause", "pacs", "", "eva"),
        ("resume", "pacs", ""),
    ]


async def test_an_account_since_a_time(client, gateway):
    found = (await client.get("/api/v1/account", params={"since": "2h"})).json()
    assert gateway.calls == [("account_since", 2800.0)]
    assert (found["since"], found["known_from"], found["balanced"]) == (3600.0, 7200.0, False)
    assert found["destinations"][0]["difference"] == 5


async def test_what_is_paused_and_what_was_tried_is_told(client):
    (pause,) = (await client.get("/api/v1/queue/pauses")).json()["pauses"]
    assert pause == {"destination": "vna", "at": 990.0, "who": "eva", "reason": "upgrade"}
    found = (await client.get("/api/v1/instances/5")).json()
    assert found["attempts"] == [
        {
            "destination": "pacs",
            "at": 950.0,
            "seconds": 0.5,
            "association": "out-1",
            "outcome": "deferred",
            "status": "A700",
            "reason": "full",
        }
    ]
    assert found["deliveries"][0]["situation"] == {
        "state": "dead",
        "why": "",
        "until": None,
        "detail": "data set does not match",
    }


# -- words

UP = DestinationState("pacs", up=True)
DOWN = DestinationState("pacs", up=False, reason="refused", next_probe_at=130.0)


def _ready(**more: object) -> Delivery:
    values = {name: getattr(delivery(7), name) for name in Delivery.__dataclass_fields__}
    return Delivery(**{**values, "state": DeliveryState.READY, "reason": "", **more})


def _standing(state: DestinationState | None = UP, **more: object) -> Standing:
    found = {} if state is None else {"pacs": state}
    return Standing(100.0, found, **more)  # type: ignore[arg-type]


PAUSED = {"pacs": Pause("pacs", 90.0, "eva", "upgrade")}


@pytest.mark.parametrize(
    ("given", "standing", "expected"),
    [
        (_ready(), _standing(), Situation("ready")),
        (
            _ready(),
            _standing(DestinationState("pacs", up=True, limited="20 Mbit/s")),
            Situation("ready", detail="20 Mbit/s"),
        ),
        (_ready(), _standing(DOWN, sending={(7, "pacs")}), Situation("sending")),
        (_ready(), _standing(sending={(7, "vna")}), Situation("ready")),
        (
            _ready(due_at=160.0, reason="A700: full"),
            _standing(),
            Situation("waiting", "back-off", 160.0, "A700: full"),
        ),
        (_ready(due_at=100.0, reason="A700: full"), _standing(), Situation("ready")),
        (
            _ready(due_at=160.0, reason="A700: full"),
            _standing(DOWN),
            Situation("waiting", "destination down", 130.0, "refused"),
        ),
        (_ready(), _standing(None), Situation("waiting", "not configured")),
        (_ready(), _standing(None, running=False), Situation("ready")),
        (
            _ready(),
            _standing(DOWN, pauses=PAUSED),
            Situation("waiting", "paused", None, "by eva: upgrade"),
        ),
        (
            _ready(),
            _standing(None, pauses=PAUSED, running=False),
            Situation("waiting", "paused", None, "by eva: upgrade"),
        ),
        (
            _ready(),
            _standing(DestinationState("pacs", up=True, opens_at=500.0)),
            Situation("waiting", "schedule", 500.0),
        ),
        (
            _ready(),
            _standing(DestinationState("pacs", up=False, shut="schedule night is shut")),
            Situation("waiting", "schedule", None, "schedule night is shut"),
        ),
        (
            _ready(priority=10),
            _standing(DestinationState("pacs", True, shut="night is shut", urgent=10)),
            Situation("ready"),
        ),
        (
            _ready(priority=9),
            _standing(DestinationState("pacs", True, shut="night is shut", urgent=10)),
            Situation("waiting", "schedule", None, "night is shut"),
        ),
        (
            _ready(priority=10),
            _standing(DestinationState("pacs", False, "refused", shut="night is shut", urgent=10)),
            Situation("waiting", "destination down", None, "refused"),
        ),
        (
            _ready(waits="study not complete"),
            _standing(pauses=PAUSED),
            Situation("waiting", "study not complete", None, "study not complete"),
        ),
        (
            _ready(waits="schedule night shut"),
            _standing(),
            Situation("waiting", "schedule", None, "schedule night shut"),
        ),
        (
            _ready(state=DeliveryState.DUPLICATE, duplicate_of=3),
            _standing(),
            Situation("duplicate", detail="the same bytes as instance 3"),
        ),
        (
            _ready(state=DeliveryState.UNCOMMITTED),
            _standing(None),
            Situation("uncommitted", "not configured", None, "stored, waits to be committed"),
        ),
        (
            _ready(state=DeliveryState.UNCOMMITTED),
            _standing(),
            Situation("uncommitted", detail="stored, waits to be committed"),
        ),
        (
            _ready(state=DeliveryState.HELD, reason="ours"),
            _standing(pauses=PAUSED),
            Situation("held", detail="ours"),
        ),
    ],
)
def test_what_a_delivery_waits_for(given, standing, expected):
    assert situation(given, standing) == expected


def test_the_page_says_what_is_paused_or_shut():
    status = replace(
        STATUS,
        snapshot=replace(
            STATUS.snapshot,
            destinations=(
                DestinationState("pacs", up=True, paused="by an operator"),
                DestinationState("vna", up=True, opens_at=1300.0),
                DestinationState("tele", up=True, limited="20 Mbit/s"),
                DestinationState("once", up=True, shut="schedule advent is shut"),
            ),
        ),
    )
    page = str(render(status))
    for words in (
        "by an operator",
        "its schedule opens in 5 min",
        "20 Mbit/s",
        "does not open again",
    ):
        assert words in page
