"""``when: committed``: a modality is told once the archives have committed, and not before."""

import threading
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.events import Event

from perf.gateway import GatewayProcess
from perf.processes import free_port, wait_until
from tests.cli.support import run
from tests.e2e.running import LIMIT, SMALL, Start, destination, route_to, send
from tests.e2e.test_commitment import Archive, answer, archive
from tests.e2e.test_promises import Modality, count, listed, outcome, uids

pytestmark = pytest.mark.timeout(120)


def settings(
    modality: Modality, sinks: dict[str, int], asked: dict[str, Any] | None = None, **promised: Any
) -> dict[str, Any]:
    """All goes to all of ``sinks``, each of which has to commit it."""
    commitment = {"after": "50ms", "answer_within": "1h", "linger": "0s", "resend": 0}
    fast = {"delay": "0s", "grace": "1s", "first": "100ms", "cap": "200ms"}
    remotes = {
        name: destination(port, commitment=commitment | (asked or {}))
        for name, port in sinks.items()
    }
    remotes["modality"] = {"ae_title": "MODALITY", "host": "127.0.0.1", "port": modality.port}
    return {
        **route_to(1),
        "remotes": remotes,
        "rules": [{"name": "everything", "to": list(sinks)}],
        "commitment": {**fast, "when": "committed", "destinations": list(sinks), **promised},
    }


def weighed(gateway: GatewayProcess) -> bool:
    """Wait until the request is looked at once more; it is not told yet."""
    (before,) = listed(gateway)
    assert before["state"] == "weighing", before
    due = before["due_at"]
    return wait_until(lambda: listed(gateway)[0]["due_at"] != due, LIMIT)


def where(gateway: GatewayProcess) -> dict[str, int]:
    """What became of the deliveries to the only archive."""
    (line,) = gateway.account()["destinations"]
    found: dict[str, int] = line
    return found


def reason(code: int, *numbers: int) -> dict[str, int]:
    return {uid: code for _, uid in uids(*numbers)}


def test_an_archive_that_never_answers_ends_with_the_time_for_it(start_gateway: Start) -> None:
    modality = Modality(free_port())
    with archive(lambda *_: None) as sink, modality.listening():
        gateway = start_gateway(settings(modality, {"sink": sink.port}, wait="2s"))
        send(gateway, SMALL, [1, 2])
        assert wait_until(lambda: bool(sink.requests), LIMIT)
        assert modality.ask(gateway, uids(1, 2)) == 0
        assert modality.reported()
    assert outcome(modality.reports[0][1]) == ([], reason(0x0110, 1, 2))
    assert gateway.account()["destinations"][0]["uncommitted"] == 2, "the archive may answer yet"


def test_what_an_archive_refuses_is_refused_and_the_rest_is_not(start_gateway: Start) -> None:
    """For good, for now, not stored at all, and not here at all: each in its own way."""
    modality = Modality(free_port())
    by_number = {n: uid for n, (_, uid) in zip(range(6), uids(*range(6)), strict=True)}

    def report(sink: Archive, _: Event, info: Dataset) -> None:
        sink.elsewhere(answer(info, {by_number[1]: 0x0119, by_number[2]: 0x0112}), 2)

    with archive(report) as sink, modality.listening():
        sink.refuses[by_number[3]] = 0xA900
        gateway = start_gateway(settings(modality, {"sink": sink.port}))
        sink.router = gateway.port
        send(gateway, SMALL, range(4))
        assert modality.ask(gateway, uids(*range(5)), "1.2.3.5") == 0
        assert modality.ask(gateway, uids(1), "1.2.3.5") == 0x0131
        assert modality.reported()
    committed, failed = outcome(modality.reports[0][1])
    assert committed == [by_number[0]]
    assert failed == reason(0x0110, 1, 2, 3) | reason(0x0112, 4)


def test_an_archive_that_knows_the_transaction_already_is_asked_again(start_gateway: Start) -> None:
    modality = Modality(free_port())

    def report(sink: Archive, _: Event, info: Dataset) -> None:
        first = len(sink.requests) == 1
        every = {str(i.ReferencedSOPInstanceUID): 0x0131 for i in info.ReferencedSOPSequence}
        sink.elsewhere(answer(info, every if first else None), 2 if first else 1)

    with archive(report) as sink, modality.listening():
        asked = {"answer_within": "500ms"}
        gateway = start_gateway(settings(modality, {"sink": sink.port}, asked))
        sink.router = gateway.port
        send(gateway, SMALL, [1])
        assert modality.ask(gateway, uids(1)) == 0
        assert modality.reported()
        assert len(sink.requests) == 2
    assert outcome(modality.reports[0][1]) == ([uids(1)[0][1]], {})


def test_a_late_report_and_kills_in_between(start_gateway: Start) -> None:
    """Of two archives one commits at once; the other on an association of its own, late."""
    modality, late = Modality(free_port()), threading.Event()

    def report_late(sink: Archive, _: Event, info: Dataset) -> None:
        late.wait(LIMIT)
        sink.elsewhere(answer(info))

    def report(sink: Archive, event: Event, info: Dataset) -> None:
        sink.here(event, answer(info))

    with archive(report) as first, archive(report_late) as second, modality.listening():
        sinks = {"first": first.port, "second": second.port}
        gateway = start_gateway(settings(modality, sinks, {"linger": "2s", "answer_within": "3s"}))
        first.router = second.router = gateway.port
        send(gateway, SMALL, range(3))
        assert modality.ask(gateway, uids(*range(3)), "1.2.3.6") == 0
        gateway.kill()
        gateway.start()
        assert wait_until(lambda: bool(second.requests), LIMIT)
        assert weighed(gateway)
        gateway.kill()
        gateway.start()
        assert weighed(gateway)
        assert not modality.reports
        late.set()
        assert modality.reported()
        assert wait_until(lambda: count(gateway, "reported") == 1, LIMIT)
    ((event_type, told, _),) = modality.reports
    assert (event_type, told.TransactionUID) == (1, "1.2.3.6")
    assert outcome(told) == ([uid for _, uid in uids(*range(3))], {})


def test_one_archive_of_two_that_is_dead_is_a_failure(start_gateway: Start) -> None:
    """What the living one has committed does not count alone."""
    modality = Modality(free_port())
    with archive(lambda a, _, info: a.elsewhere(answer(info))) as sink, modality.listening():
        values = settings(modality, {"sink": sink.port, "dead": free_port()}, wait="3s")
        gateway = start_gateway(values)
        sink.router = gateway.port
        send(gateway, SMALL, [1])
        assert modality.ask(gateway, uids(1)) == 0
        assert modality.reported()
    assert outcome(modality.reports[0][1]) == ([], reason(0x0110, 1))


@pytest.mark.parametrize("taken_out", [False, True])
def test_what_was_delivered_while_no_proof_was_asked_for(
    start_gateway: Start, *, taken_out: bool
) -> None:
    """The archive is asked from a reload on; it was never asked for what came before."""
    modality = Modality(free_port())
    with archive(lambda *_: None) as sink, modality.listening():
        asking = settings(modality, {"sink": sink.port}, {"after": "1h"})
        silent = settings(modality, {"sink": sink.port}, when="delivered")
        del silent["remotes"]["sink"]["commitment"]
        gateway = start_gateway(asking if taken_out else silent)
        send(gateway, SMALL, [1])
        assert wait_until(lambda: bool(sink.stored), LIMIT)
        for values in (silent, asking) if taken_out else (asking,):
            if values is asking:
                assert wait_until(lambda: where(gateway)["delivered"] == 1, LIMIT)
            gateway.configure(values)
            assert run("reload", "--config", gateway.config).exit_code == 0
        assert modality.ask(gateway, uids(1)) == 0
        assert modality.reported()
        assert not sink.requests
    assert outcome(modality.reports[0][1]) == ([], reason(0x0110, 1))


def test_a_paused_archive_is_asked_once_it_is_resumed(start_gateway: Start) -> None:
    modality = Modality(free_port())
    with archive(lambda a, _, info: a.elsewhere(answer(info))) as sink, modality.listening():
        values = settings(modality, {"sink": sink.port}, {"after": "2s"})
        gateway = start_gateway(values)
        sink.router = gateway.port
        send(gateway, SMALL, [1])
        assert wait_until(lambda: bool(sink.stored), LIMIT)
        body = {"destination": "sink"}
        because = {"because": "upgrade"}
        status, said = gateway.control("POST", "/api/v1/queue/pause", body | because)
        assert status == 200, said
        assert modality.ask(gateway, uids(1)) == 0
        for _ in range(3):
            assert weighed(gateway)
        assert not sink.requests
        status, said = gateway.control("POST", "/api/v1/queue/resume", body)
        assert status == 200, said
        assert modality.reported()
    assert outcome(modality.reports[0][1]) == ([uids(1)[0][1]], {})
