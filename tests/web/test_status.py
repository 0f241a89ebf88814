import asyncio
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.web import page
from router.web.sources import ControlError, Readiness
from router.web.status import create_app, hosts_for
from tests.web.fakes import EVIL, SOP_INSTANCE, STUDY

READ_ONLY = (
    "/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/v1/status",
    "/api/v1/queue",
    "/rules",
    "/api/v1/rules",
)


def client_of(app, host="127.0.0.1:8080"):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}")


@pytest.fixture
async def client(gateway):
    async with client_of(create_app(gateway)) as client:
        yield client


async def test_metrics_are_what_prometheus_reads(client):
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {f.name for f in text_string_to_metric_families(answer.text)}
    assert {"dcmrouter_queue_instances", "dcmrouter_build_info"} <= families


async def test_health_does_not_ask_the_gateway(client, gateway):
    gateway.fail = RuntimeError("index gone")
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_ready_says_why_not(client, gateway):
    assert (await client.get("/readyz")).status_code == 200
    gateway.readiness_value = Readiness(("the disk is low",))
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready", "reasons": ["the disk is low"]}


async def test_a_gateway_that_cannot_tell_is_not_ready(client, gateway):
    gateway.fail = RuntimeError("secret path")
    answer = await client.get("/readyz")
    assert answer.status_code == 500
    assert answer.json().keys() == {"error", "fix"}
    assert "secret" not in answer.text


async def test_a_gateway_that_does_not_answer_in_time(gateway):
    async def never():
        await asyncio.Event().wait()

    gateway.status = never
    async with client_of(create_app(gateway, timeout=0.01)) as client:
        answer = await client.get("/api/v1/status")
    assert answer.status_code == 503
    assert "in time" in answer.json()["error"]


async def test_a_refusal_of_the_gateway_is_passed_on(client, gateway):
    gateway.fail = ControlError("the index is being rebuilt", "wait", status=503)
    answer = await client.get("/api/v1/queue")
    assert answer.status_code == 503
    assert answer.json() == {"error": "the index is being rebuilt", "fix": "wait"}


async def test_status_and_queue(client):
    status = (await client.get("/api/v1/status")).json()
    assert status["version"] == "1.2.3"
    assert status["disk"] == {
        "spool_bytes": 64_000_000,
        "free_bytes": 5_000_000_000,
        "low": True,
        "spare_bytes": 16_000_000,
        "share": None,
        "archive_failed": None,
    }
    assert status["destinations"][0]["name"] == "pacs"
    queues = (await client.get("/api/v1/queue")).json()["queues"]
    assert queues == status["queues"]
    assert queues[0]["state"] == "ready"
    assert queues[0]["instances"] == 3


async def test_nothing_over_tcp_names_an_instance_or_a_study(client):
    for path in READ_ONLY:
        text = (await client.get(path)).text
        assert STUDY not in text
        assert SOP_INSTANCE not in text
    for path in ("/api/v1/instances", "/api/v1/instances/1", "/api/v1/queue/list"):
        assert (await client.get(path)).status_code == 404
    # A filter would be a way to ask whether a given study is here.
    assert (await client.get("/api/v1/queue", params={"study": STUDY})).status_code == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_everything_over_tcp_is_read_only(client, gateway, method):
    for path in READ_ONLY:
        answer = await client.request(method, path)
        assert answer.status_code == 405
        assert answer.json().keys() == {"error", "fix"}
        assert answer.headers["allow"]
    for path in (
        "/api/v1/queue/retry",
        "/api/v1/queue/drop",
        "/api/v1/reload",
        "/api/v1/rules/rollback",
    ):
        assert (await client.request(method, path)).status_code == 404
    assert gateway.calls == []


async def test_names_that_are_script_come_out_as_text(client):
    html = (await client.get("/")).text
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in html
    assert html.count("&lt;script&gt;") == 4  # destination, its reason, AE title, reload error


async def test_the_page_of_rules_has_no_script_either(client):
    html = (await client.get("/rules")).text
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 4  # name, condition, destination, reload error


async def test_the_page_of_rules_tells_what_is_in_force(client):
    text = re.sub(r"<[^>]+>", " ", (await client.get("/rules")).text)
    text = re.sub(r"\s+", " ", text)
    for wanted in (
        "Rules 0123456789ab, kept as version 7, in force since 1970-01-01 00:15:00 UTC",
        "What lies on the disk is not in force",
        "Versions: the disk is full",
        "2 night always disabled: waiting for the VPN sends to pacs",
        "trial 17 its file cannot be read: an old state",
    ):
        assert wanted in text, wanted
    assert (await client.get("/api/v1/rules")).json()["rules"][1]["name"] == "night"


async def test_the_page_tells_what_a_person_on_call_needs(client):
    text = re.sub(r"<[^>]+>", " ", (await client.get("/")).text)
    text = re.sub(r"\s+", " ", text)
    for wanted in (
        "3 3.0 MB 1 min",  # waiting, size, age of the oldest
        "down",
        "next try in 30 s",
        "not configured",
        "Configuration not in effect",
        "Not accounted for, pacs: 1",
        "Spool 64.0 MB, of which 16.0 MB spare; free 5.0 GB. low: C-STORE is answered A700",
        "0.0.0.0:11112",
        "1 min 30 s",  # how long the association is open
    ):
        assert wanted in text, wanted


async def test_the_page_needs_and_allows_nothing_from_elsewhere(client):
    answer = await client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for each in ("/", "/rules"):
        html = (await client.get(each)).text
        assert not re.search(r"<[^>]+\s(src|action|on\w+)=", html)
        # Relative, so that they lead back here behind a proxy too.
        assert set(re.findall(r"href=\"([^\"]*)\"", html)) <= {"rules", "./"}
    # The browser only applies a style whose text has the hash that the policy names.
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)[1]
    assert style == page.STYLE


async def test_every_answer_has_the_headers_of_safety(client):
    for path in (*READ_ONLY, "/nowhere"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["date"].endswith("GMT")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("localhost", True),
        ("LOCALHOST.:80", True),
        ("[::1]:8080", True),
        ("10.0.0.5", True),
        ("gateway.hospital.example", True),
        ("rebound.attacker.example:8080", False),
        ("localhost.attacker.example", False),
        ("127.0.0.1.attacker.example", False),
    ],
)
async def test_a_rebound_name_is_refused_where_names_are_known(gateway, host, allowed):
    app = create_app(gateway, allowed_hosts=["Gateway.hospital.example"])
    async with client_of(app, host) as client:
        answer = await client.get("/api/v1/status")
    assert answer.status_code == (200 if allowed else 421)


def test_names_are_checked_on_the_loopback_or_when_given():
    assert hosts_for("127.0.0.1", []) == []
    assert hosts_for("::1", []) == []
    assert hosts_for("0.0.0.0", []) is None
    assert hosts_for("0.0.0.0", ["gw"]) == ["gw"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (90000, "1 d 1 h"),
        (86460, "1 d"),
    ],
)
def test_durations_for_people(seconds, text):
    assert page.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e15, "2.5 PB")]
)
def test_sizes_for_people(count, text):
    assert page.size(count) == text


async def test_the_evil_name_is_json_as_it_is(client):
    answer = await client.get("/api/v1/status")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["destinations"][1]["name"] == EVIL
