"""Waiting for a study, a schedule or another destination, in processes of their own."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event

from perf import data
from perf.gateway import GatewayProcess
from perf.processes import free_port, wait_until
from perf.witness import Seen, WitnessThread
from tests.e2e.running import (
    LIMIT,
    SMALL,
    Start,
    association,
    destination,
    instance,
    route_to,
    send,
    settled,
    store,
)

pytestmark = pytest.mark.timeout(120)

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"


def pair(first: int, second: int, **rule: Any) -> dict[str, Any]:
    """Everything goes to the one, or else to the other."""
    return route_to(first) | {
        "remotes": {"first": destination(first), "second": destination(second)},
        "rules": [{"name": "pair", "to": {"failover": ["first", "second"]}, **rule}],
    }


def waiting_for(gateway: GatewayProcess) -> set[str]:
    """Why what is in the queue waits."""
    return {str(item.get("waits", "")) for item in gateway.queue()}


def unanswered(gateway: GatewayProcess) -> int:
    return sum(
        line["sent_without_answer"]
        for line in gateway.log_lines()
        if line.get("event") == "others take what waits"
    )


async def paced(
    gateway: GatewayProcess, count: int, between: dict[int, Callable[[], None]]
) -> None:
    """Sends instances over one association, and does something before some of them."""
    to = association(gateway)
    await to.open()
    for number in range(count):
        if number in between:
            await asyncio.to_thread(between[number])
        assert await store(to, *instance(SMALL, number)) == 0
    await to.release()


def test_a_destination_that_is_killed_and_revived_in_the_middle_of_a_study(
    start_gateway: Start,
) -> None:
    with WitnessThread() as first, WitnessThread() as second:
        gateway = start_gateway(pair(first.port, second.port))

        def gone() -> None:
            assert first.wait(lambda seen: seen.total() > 5, LIMIT)
            first.shut()

        def back() -> None:
            assert second.wait(lambda seen: seen.total() > 20, LIMIT)
            first.open()

        def found_up() -> None:
            assert wait_until(
                lambda: any(
                    line.get("event") == "destination is up" for line in gateway.log_lines()
                ),
                LIMIT,
            )

        asyncio.run(paced(gateway, 300, {60: gone, 160: back, 220: found_up}))
        assert settled(gateway, 300)
        times = first.seen() + second.seen()
        assert set(times) == {Seen.of(*instance(SMALL, n)) for n in range(300)}
        assert times.total() - 300 <= unanswered(gateway)
        last = {Seen.of(*instance(SMALL, n)) for n in range(230, 300)}
        assert set(first.seen()) >= last, "back at the first"
        assert gateway.account()["balanced"]


def test_a_study_waits_for_its_end_through_a_kill(start_gateway: Start) -> None:
    with WitnessThread() as sink:
        rule = {"name": "whole", "to": "sink", "send": {"after": "study-complete", "quiet": "1s"}}
        gateway = start_gateway(route_to(sink.port) | {"rules": [rule]})

        async def slowly() -> float:
            to = association(gateway)
            await to.open()
            for number in range(5):
                assert await store(to, *instance(SMALL, number)) == 0
            assert not await asyncio.to_thread(sink.wait, lambda seen: seen.total() > 0, 2.5)
            await to.release()
            return time.monotonic()

        released = asyncio.run(slowly())
        assert sink.wait(lambda seen: seen.total() == 5, LIMIT)
        assert time.monotonic() - released < 30
        assert settled(gateway, 5)

        send(gateway, SMALL, [5, 6])  # late: a supplement
        assert wait_until(lambda: waiting_for(gateway) == {"study not complete"}, LIMIT)
        gateway.kill()
        gateway.start()
        assert sink.wait(lambda seen: seen.total() == 7, LIMIT)
        assert settled(gateway, 7)
        lines = [line for line in gateway.log_lines() if line.get("event") == "gate opened"]
        assert [(line["instances"], line["supplement"]) for line in lines] == [(5, 0), (2, 1)]
        study = data.instance_uid(SMALL, 1, 0, level=1)
        assert not any(study in str(line) for line in gateway.log_lines())


def test_a_schedule_holds_and_a_reload_with_other_windows_lets_go(start_gateway: Start) -> None:
    with WitnessThread() as sink:
        hour = time.gmtime().tm_hour

        def windows(open_: str) -> dict[str, Any]:
            rule = {"name": "at night", "to": "sink", "send": {"schedule": "night"}}
            return route_to(sink.port) | {
                "timezone": "UTC",
                "schedules": {"night": {"open": open_}},
                "rules": [rule],
            }

        shut = f"{(hour + 10) % 24:02}:00-{(hour + 11) % 24 or 24:02}:00"
        gateway = start_gateway(windows(shut))
        send(gateway, SMALL, range(5))
        assert wait_until(lambda: waiting_for(gateway) == {"schedule night shut"}, LIMIT)
        assert wait_until(
            lambda: sum(gateway.metrics().get("dcmrouter_gated_instances", {}).values()) == 5, LIMIT
        )
        assert not sink.wait(lambda seen: seen.total() > 0, 0.5)
        gateway.configure(windows("00:00-24:00"))
        gateway.signal(signal.SIGHUP)
        assert sink.wait(lambda seen: seen.total() == 5, LIMIT)
        send(gateway, SMALL, range(5, 10))
        assert sink.wait(lambda seen: seen.total() == 10, LIMIT)
        gateway.configure(windows(shut))
        gateway.signal(signal.SIGHUP)
        assert wait_until(
            lambda: (
                len([x for x in gateway.log_lines() if x["event"] == "configuration reloaded"]) == 2
            ),
            LIMIT,
        )
        send(gateway, SMALL, range(10, 12))
        assert not sink.wait(lambda seen: seen.total() > 10, 0.5)


@contextlib.contextmanager
def archive(known: Callable[[], int]) -> Iterator[int]:
    """One that tells how many instances of any study it knows of; its port."""

    def find(event: Event) -> Iterator[tuple[int, Dataset]]:
        match = Dataset()
        match.QueryRetrieveLevel = "STUDY"
        match.StudyInstanceUID = event.identifier.StudyInstanceUID
        match.NumberOfStudyRelatedInstances = known()
        yield 0xFF00, match

    ae = AE("SINK")
    ae.add_supported_context(STUDY_ROOT, uids.ImplicitVRLittleEndian)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()


def test_a_study_waits_until_the_archive_knows_of_no_more(start_gateway: Start) -> None:
    asked: list[int] = []

    def known() -> int:
        asked.append(5)
        return 5

    with WitnessThread() as sink, archive(known) as port:
        sends = {
            "after": "study-complete",
            "quiet": "1s",
            "expect": {"archive": "vna", "wait": "1h"},
        }
        gateway = start_gateway(
            route_to(sink.port)
            | {
                "remotes": {"sink": destination(sink.port), "vna": destination(port)},
                "rules": [{"name": "whole", "to": "sink", "send": sends}],
            }
        )
        send(gateway, SMALL, range(3))
        assert wait_until(lambda: len(asked) > 0, LIMIT)
        assert not sink.wait(lambda seen: seen.total() > 0, 1.0)
        send(gateway, SMALL, range(3, 5))
        assert sink.wait(lambda seen: seen.total() == 5, LIMIT)


def test_an_archive_that_is_down_holds_it_for_the_wait_and_no_longer(start_gateway: Start) -> None:
    with WitnessThread() as sink:
        sends = {
            "after": "study-complete",
            "quiet": "1s",
            "expect": {"archive": "vna", "wait": "2s"},
        }
        gateway = start_gateway(
            route_to(sink.port)
            | {
                "remotes": {"sink": destination(sink.port), "vna": destination(free_port())},
                "rules": [{"name": "whole", "to": "sink", "send": sends}],
            }
        )
        began = time.monotonic()
        send(gateway, SMALL, range(3))
        assert sink.wait(lambda seen: seen.total() == 3, LIMIT)
        assert time.monotonic() - began >= 2.0
        events = [line.get("event") for line in gateway.log_lines()]
        assert events.count("an archive was not asked") == 1
