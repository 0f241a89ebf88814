import asyncio

import httpx
import pytest

from router.spool.errors import SpoolDamaged
from router.spool.index_types import DeliveryState, Disposition, Filter
from router.web.control import create_control_app
from router.web.sources import ControlError, Reloaded
from tests.web.fakes import SOP_INSTANCE, STUDY


@pytest.mark.parametrize("action", ["retry", "hold", "release"])
async def test_actions_take_a_filter(client, gateway, action):
    answer = await client.post(f"/api/v1/queue/{action}", json={"destination": "pacs"})
    assert answer.json() == {"changed": 3, "bytes": 3000, "more": False}
    assert gateway.calls == [(action, Filter(destination="pacs"))]


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("queue/retry", {}),
        ("queue/hold", {}),
        ("queue/release", {}),
        ("queue/release", {"to": "pacs"}),
        ("queue/drop", {"because": "so"}),
        ("instances/discard", {"because": "so"}),
    ],
)
async def test_every_action_tells_who_asks(client, gateway, path, more):
    body = {"ids": [1], "author": "eva", **more}
    assert (await client.post(f"/api/v1/{path}", json=body)).status_code == 200
    assert gateway.authors == ["eva"]


async def test_every_condition_is_understood(client, gateway):
    conditions = {
        "destination": "pacs",
        "state": "dead",
        "study": STUDY,
        "sop_instance_uid": SOP_INSTANCE,
        "reason": "refused*",
        "older_than": "2h",
        "newer_than": 9000,
        "ids": [4, 5],
        "disposition": "quarantined",
    }
    await client.post("/api/v1/queue/retry", json=conditions)
    expected = Filter(
        destination="pacs",
        state=DeliveryState.DEAD,
        study=STUDY,
        sop_instance_uid=SOP_INSTANCE,
        reason="refused*",
        older_than=2800.0,
        newer_than=1000.0,
        ids=(4, 5),
        disposition=Disposition.QUARANTINED,
    )
    assert gateway.calls == [("retry", expected)]


@pytest.mark.parametrize("action", ["retry", "hold", "release", "drop"])
@pytest.mark.parametrize("body", [None, {}, {"all": False}, {"destination": None}, {"all": "yes"}])
async def test_everything_is_only_meant_when_it_is_said(client, gateway, action, body):
    answer = await client.post(f"/api/v1/queue/{action}", json=body)
    assert answer.status_code == 400
    assert gateway.calls == []


async def test_everything_can_be_said(client, gateway):
    await client.post("/api/v1/queue/retry", json={"all": True})
    assert gateway.calls == [("retry", Filter())]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"destinaton": "pacs"}, "unknown condition 'destinaton'"),
        ({"state": "sent"}, 'state "sent" is not known'),
        ({"state": 3}, "state 3 is not known"),
        ({"destination": ["pacs"]}, 'destination is text, not ["pacs"]'),
        ({"destination": ""}, "destination is text"),
        ({"older_than": "soon"}, "older_than: expected a duration"),
        ({"ids": [0]}, "ids is a list of instance numbers"),
        ({"ids": [True]}, "ids is a list of instance numbers"),
        ({"ids": 5}, "ids is a list of instance numbers"),
        ({"ids": list(range(1, 10_002))}, "10001 ids are too many"),
    ],
)
async def test_a_wrong_condition_is_named_with_its_fix(client, gateway, body, error):
    answer = await client.post("/api/v1/queue/drop", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)
    assert answer.json()["fix"]
    assert gateway.calls == []


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_not_an_object_is_refused(client, content):
    answer = await client.post("/api/v1/queue/retry", content=content)
    assert answer.status_code == 400
    assert "body" in answer.json()["error"]


async def test_a_body_without_end_is_refused(client):
    answer = await client.post("/api/v1/queue/retry", content=b" " * 1_100_000)
    assert answer.status_code == 413


async def test_discard_wants_a_condition_and_a_reason(client, gateway):
    address = "/api/v1/instances/discard"
    await client.post(address, json={"ids": [4], "because": "test images"})
    assert gateway.calls == [("discard_held", Filter(ids=(4,)), "test images")]
    for body in ({"ids": [4]}, {"ids": [4], "because": " "}, {"because": "test images"}):
        assert (await client.post(address, json=body)).status_code == 400
    assert len(gateway.calls) == 1


async def test_drop_says_because(client, gateway):
    await client.post("/api/v1/queue/drop", json={"ids": [1], "because": "sent by hand"})
    assert gateway.calls == [("drop", Filter(ids=(1,)), "sent by hand")]
    assert gateway.authors == [""]
    answer = await client.post("/api/v1/queue/drop", json={"ids": [1], "because": 5})
    assert answer.status_code == 400


@pytest.mark.parametrize("to", ["pacs", ["pacs"]])
async def test_held_instances_are_released_to_destinations(client, gateway, to):
    await client.post("/api/v1/queue/release", json={"disposition": "held", "to": to})
    assert gateway.calls == [("route_held", Filter(disposition=Disposition.HELD), ("pacs",))]


@pytest.mark.parametrize("to", [[], [1], {}, 5])
async def test_released_to_nowhere_is_refused(client, gateway, to):
    answer = await client.post("/api/v1/queue/release", json={"ids": [1], "to": to})
    assert answer.status_code == 400
    assert gateway.calls == []


async def test_the_queue_is_listed_in_pages(client, gateway):
    seen, after = [], ""
    while True:
        params = {"limit": 2, "after": after, "state": "dead"}
        page = (await client.get("/api/v1/queue/list", params=params)).json()
        seen += page["entries"]
        after = page["next"]
        if not after:
            break
    assert [e["instance_id"] for e in seen] == [1, 2, 3, 4, 5]
    assert seen[0]["status"] == "A900"
    assert seen[0]["state"] == "dead"
    assert seen[0]["sop_instance_uid"] == SOP_INSTANCE
    assert gateway.calls[1] == ("queue", Filter(state=DeliveryState.DEAD), 2, (0, 2))


async def test_instances_are_listed_in_pages(client, gateway):
    page = (await client.get("/api/v1/instances", params={"limit": 3, "ids": "1,2"})).json()
    assert [e["id"] for e in page["entries"]] == [1, 2, 3]
    page = (await client.get("/api/v1/instances", params={"after": page["next"]})).json()
    assert [e["id"] for e in page["entries"]] == [4, 5]
    assert page["next"] == ""
    assert gateway.calls[0] == ("instances", Filter(ids=(1, 2)), 3, 0)


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": -1}, {"limit": 10**9}, {"limit": "٣"}, {"after": "x.y"}]
)
async def test_wrong_pages_are_refused(client, params):
    assert (await client.get("/api/v1/queue/list", params=params)).status_code == 400


async def test_a_number_of_a_thousand_digits_is_refused(client):
    answer = await client.get("/api/v1/queue/list", params={"ids": "1" * 5000})
    assert answer.status_code == 400
    assert answer.json()["error"] == "ids is a list of instance numbers"


async def test_one_instance(client):
    value = (await client.get("/api/v1/instances/5")).json()
    assert value["id"] == 5
    assert value["disposition"] == "routed"
    assert value["deliveries"][0]["destination"] == "pacs"
    assert value["events"][0]["who"] == "root"
    assert value["routes"] == [
        {"destination": "pacs", "rule": "everything", "priority": 0, "plan": {}}
    ]
    answer = await client.get("/api/v1/instances/6")
    assert answer.status_code == 404
    assert "6" in answer.json()["error"]
    assert (await client.get(f"/api/v1/instances/{2**70}")).status_code == 400


async def test_the_file_of_an_instance(client, gateway):
    answer = await client.get("/api/v1/instances/5/file")
    assert answer.content == b"x" * 600 + b"y" * 400
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.headers["content-length"] == "1000"
    assert answer.headers["content-disposition"] == 'attachment; filename="instance_5__.dcm"'
    assert gateway.file_closed
    assert (await client.get("/api/v1/instances/6/file")).status_code == 404


async def test_a_file_that_cannot_be_read_is_refused_in_words(client, gateway):
    gateway.file_pieces, gateway.file_error = [], SpoolDamaged("instance 5: its record is damaged")
    answer = await client.get("/api/v1/instances/5/file")
    assert answer.status_code == 500
    assert "damaged" in answer.json()["error"]
    assert gateway.file_closed


async def test_a_head_request_leaves_nothing_open(client, gateway):
    answer = await client.head("/api/v1/instances/5/file")
    assert answer.status_code == 200
    assert gateway.file_closed


@pytest.mark.parametrize(
    ("path", "body", "wrong"),
    [
        ("reload", {"autor": "anna"}, "unknown field 'autor'"),
        ("reload", {"author": 1}, "author is text"),
        ("reload", {"note": "x" * 501}, "note is text of at most 500 characters"),
        ("rules/rollback", {}, "version is a number or a text"),
        ("rules/rollback", {"version": True}, "version is a number or a text"),
        ("rules/rollback", {"version": [1]}, "version is a number or a text"),
        ("rules/rollback", {"version": 1, "force": True}, "unknown field 'force'"),
    ],
)
async def test_what_cannot_be_asked_of_a_reload(client, gateway, path, body, wrong):
    answer = await client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 400
    assert wrong in answer.json()["error"]
    assert gateway.calls == []


async def test_a_rollback_that_cannot_be_says_why(client, gateway):
    gateway.fail = ControlError("there is no version 9", "see the list", status=404)
    answer = await client.post("/api/v1/rules/rollback", json={"version": 9})
    assert answer.status_code == 404
    assert answer.json() == {"error": "there is no version 9", "fix": "see the list"}
    gateway.fail = None
    gateway.reloaded = Reloaded(applied=False, problems=("config.yaml:3:1: no",))
    answer = await client.post("/api/v1/rules/rollback", json={"version": 9})
    assert answer.status_code == 409
    assert answer.json()["problems"] == ["config.yaml:3:1: no"]


async def test_a_rollback_names_who_and_why(client, gateway):
    gateway.reloaded = Reloaded(True, ("rules",), (), 4, ("/etc/\udcff.yaml",))
    body = {"version": "previous", "author": " anna ", "note": "wrong"}
    answer = await client.post("/api/v1/rules/rollback", json=body)
    assert answer.json()["files"] == ["/etc/\\xff.yaml"]
    [(_, text, origin)] = gateway.calls
    assert (text, origin.author, origin.note) == ("previous", "anna", "wrong")
    assert origin.via.startswith("control socket")


async def test_versions_the_newest_first_and_their_files(client, gateway):
    found = (await client.get("/api/v1/rules/versions")).json()
    assert [each["number"] for each in found["versions"]] == [5, 3]
    assert (found["in_force"], found["damaged"]) == (5, ["4: no"])
    assert found["versions"][1]["names"] == ["config.yaml", "rules.d/\\xff.yaml"]
    found = (await client.get("/api/v1/rules/versions/previous")).json()
    assert found["outcome"] == "refused"
    assert found["files"] == [
        {"name": "config.yaml", "text": "a: 1\n"},
        {"name": "rules.d/\\xff.yaml", "base64": "/w=="},
    ]
    assert gateway.calls == [("version", "previous")]


async def test_a_difference_is_that_of_the_disk_unless_it_is_said(client, gateway):
    found = (await client.get("/api/v1/rules/diff")).json()
    assert (found["text"], found["rules"]) == ("+x\n", ["rule 'a' was added"])
    await client.get("/api/v1/rules/diff", params={"old": "3", "new": "previous"})
    assert gateway.calls == [("difference", "current", "disk"), ("difference", "3", "previous")]
    answer = await client.get("/api/v1/rules/diff", params={"from": "3"})
    assert answer.status_code == 400
    assert "unknown parameter 'from'" in answer.json()["error"]


async def test_reload_tells_what_changed_or_what_is_wrong(client, gateway):
    answer = await client.post("/api/v1/reload")
    assert answer.status_code == 200
    assert answer.json() == {
        "applied": True,
        "changes": ["rules"],
        "problems": [],
        "version": None,
        "files": [],
        "notes": [],
    }
    gateway.reloaded = Reloaded(applied=False, problems=("config.yaml:3:1: no",))
    answer = await client.post("/api/v1/reload")
    assert answer.status_code == 409
    assert answer.json()["problems"] == ["config.yaml:3:1: no"]
    assert (await client.get("/api/v1/reload")).status_code == 405


async def test_status_queue_and_account(client):
    assert (await client.get("/api/v1/status")).json()["version"] == "1.2.3"
    assert len((await client.get("/api/v1/queue")).json()["queues"]) == 3
    account = (await client.get("/api/v1/account")).json()
    assert account["balanced"] is False
    assert account["destinations"][0]["destination"] == "pacs"
    assert account["destinations"][0]["difference"] == 1


async def test_what_the_gateway_refuses_is_passed_on(client, gateway):
    gateway.fail = ControlError("pacs is not a destination", "name one", status=409)
    answer = await client.post("/api/v1/queue/retry", json={"all": True})
    assert answer.status_code == 409
    assert answer.json() == {"error": "pacs is not a destination", "fix": "name one"}


async def test_an_order_that_takes_too_long_says_that_it_was_done_in_part(gateway):
    async def never(*_):
        await asyncio.Event().wait()

    gateway.resend = gateway.queues = gateway.reload = gateway.rollback = never
    app = create_control_app(gateway, timeout=0.01)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        order = {"ids": [1], "to": "pacs"}
        answer = await client.post("/api/v1/instances/resend", json=order)
        looked = await client.get("/api/v1/queue")
        changed = [
            await client.post("/api/v1/reload", json={}),
            await client.post("/api/v1/rules/rollback", json={"version": 7}),
        ]
    assert answer.status_code == looked.status_code == 503
    assert "what it did until then stands" in answer.json()["error"]
    assert looked.json()["fix"].startswith("try again")
    for change in changed:
        assert change.status_code == 503
        assert change.json()["error"].endswith("within 0.01 s, and that goes on")
