"""Storage commitment for modalities, by a gateway in a process of its own and pynetdicom."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from perf.gateway import GatewayProcess
from perf.processes import free_port, wait_until
from perf.witness import WitnessThread
from tests.e2e.running import LIMIT, SMALL, Start, instance, route_to, send, settled

pytestmark = pytest.mark.timeout(120)

REQUESTS = "dcmrouter_commitment_requests_total"


class Modality:
    """Asks for commitment, and listens for the reports at `port` while it is `listening`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reports: list[tuple[int, Dataset, str]] = []
        self.answers = [0x0000]
        self._lock = threading.Lock()

    def on_report(self, event: Event) -> tuple[int, None]:
        with self._lock:
            called = event.assoc.requestor.ae_title
            self.reports.append((event.event_type, event.event_information, called))
            status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return status, None

    @contextmanager
    def listening(self, *, roles: bool = True) -> Iterator[None]:
        ae = AE("MODALITY")
        said = {"scu_role": False, "scp_role": True} if roles else {}
        ae.add_supported_context(StorageCommitmentPushModel, **said)
        server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.on_report)],
        )
        try:
            yield
        finally:
            server.shutdown()

    def ask(
        self,
        gateway: GatewayProcess,
        items: Sequence[tuple[str, str]],
        transaction: str = "",
        title: str = "MODALITY",
        action: int = 1,
        stays: bool = False,
    ) -> int:
        """The status of an N-ACTION; with ``stays`` the report is awaited before the release."""
        data = Dataset()
        data.TransactionUID = transaction or generate_uid()
        data.ReferencedSOPSequence = []
        for class_uid, uid in items:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, uid
            data.ReferencedSOPSequence.append(item)
        ae = AE(title)
        ae.add_requested_context(StorageCommitmentPushModel)
        association = ae.associate(
            "127.0.0.1",
            gateway.port,
            ae_title="ROUTER",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.on_report)],
        )
        assert association.is_established
        assert association.accepted_contexts, "the context was not accepted"
        status, _ = association.send_n_action(
            data, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        if stays:
            assert self.reported()
        association.release()
        return int(status.Status)

    def reported(self, count: int = 1) -> bool:
        return wait_until(lambda: len(self.reports) >= count, LIMIT)


def outcome(report: Dataset) -> tuple[list[str], dict[str, int]]:
    """What is committed, and the reasons of what is not."""
    committed = [item.ReferencedSOPInstanceUID for item in report.get("ReferencedSOPSequence", [])]
    failed = report.get("FailedSOPSequence", [])
    return committed, {item.ReferencedSOPInstanceUID: item.FailureReason for item in failed}


def settings(sink: int, modality: int, **commitment: Any) -> dict[str, Any]:
    values = route_to(sink)
    values["remotes"]["modality"] = {
        "ae_title": "MODALITY",
        "host": "127.0.0.1",
        "port": modality,
    }
    fast = {"delay": "0s", "grace": "1s", "first": "100ms", "cap": "200ms"}
    return values | {"commitment": {**fast, **commitment}}


def uids(*numbers: int) -> list[tuple[str, str]]:
    return [(str(MRImageStorage), instance(SMALL, number)[0]) for number in numbers]


def count(gateway: GatewayProcess, what: str) -> float:
    """Requests of the modality that had this outcome."""
    return gateway.metrics().get(REQUESTS, {}).get(f'outcome="{what}",remote="modality"', 0)


def command(gateway: GatewayProcess, *options: str) -> str:
    """What ``dcmrouter commitments list`` says."""
    words = ("commitments", "list", "--config", str(gateway.config), *options)
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(gateway: GatewayProcess, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command(gateway, "--json", *options))["commitments"]
    return found


def test_whom_we_cannot_answer_is_refused(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port))
    assert modality.ask(gateway, uids(1), title="STRANGER") == 0x0124
    assert modality.ask(gateway, uids(1), action=2) == 0x0123
    assert modality.ask(gateway, []) == 0x0121
    assert modality.ask(gateway, [(str(MRImageStorage), "")]) == 0x0121
    refused = [e for e in gateway.log_lines() if e.get("event") == "storage commitment refused"]
    assert len(refused) == 4
    for wrong in ("limit=x", "limit=100000000", "state=open"):
        status, body = gateway.control("GET", f"/api/v1/commitments?{wrong}")
        assert (status, bool(json.loads(body)["error"])) == (400, True)
    assert gateway.metrics()[REQUESTS] == {
        'outcome="refused",remote="unknown"': 1,
        'outcome="refused",remote="modality"': 3,
    }


def test_without_the_setting_it_is_not_offered(start_gateway: Start) -> None:
    values = settings(free_port(), free_port())
    del values["commitment"]
    gateway = start_gateway(values)
    ae = AE("MODALITY")
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate("127.0.0.1", gateway.port, ae_title="ROUTER")
    assert not association.accepted_contexts
    association.abort()


def test_what_is_safe_is_committed_and_what_is_not_has_its_reason(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port))  # nothing listens as sink
    send(gateway, SMALL, range(3))
    conflict = (str(CTImageStorage), instance(SMALL, 2)[0])
    unknown = (str(MRImageStorage), "1.2.3.4.5")
    with modality.listening():
        assert modality.ask(gateway, [*uids(0, 1), conflict, unknown], "1.2.3.99") == 0
        assert modality.reported()
    ((event_type, report, calling),) = modality.reports
    assert event_type == 2
    assert calling == "ROUTER"
    assert report.TransactionUID == "1.2.3.99"
    assert outcome(report) == ([u for _, u in uids(0, 1)], {conflict[1]: 0x119, unknown[1]: 0x112})


@pytest.mark.parametrize("how", ["removed", "overwritten"])
def test_what_is_gone_from_the_disk_is_not_promised(start_gateway: Start, how: str) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port))  # nothing listens as sink
    send(gateway, SMALL, range(3))
    with modality.listening():
        assert modality.ask(gateway, uids(0, 1, 2)) == 0
        assert modality.reported()
        segments = list((gateway.data_dir / "spool/segments").iterdir())
        assert segments
        for path in segments:
            if how == "removed":
                path.unlink()
            else:
                with path.open("r+b") as file:
                    file.write(bytes(path.stat().st_size))
        assert modality.ask(gateway, uids(0, 1, 2)) == 0
        assert modality.reported(2)
    (_, before, _), (_, after, _) = modality.reports
    assert outcome(before) == ([uid for _, uid in uids(0, 1, 2)], {})
    assert outcome(after) == ([], {uid: 0x110 for _, uid in uids(0, 1, 2)})


def test_all_is_well_for_a_thousand(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port))
    send(gateway, SMALL, range(1000))
    with modality.listening():
        assert modality.ask(gateway, uids(*range(1000))) == 0
        assert modality.reported()
    ((event_type, report, _),) = modality.reports
    assert event_type == 1
    assert outcome(report) == ([u for _, u in uids(*range(1000))], {})


def test_an_instance_that_comes_after_the_request(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port, grace="60s"))
    with modality.listening():
        assert modality.ask(gateway, uids(5)) == 0
        send(gateway, SMALL, [5])
        assert modality.reported()
    assert outcome(modality.reports[0][1]) == ([uids(5)[0][1]], {})


def test_what_came_before_the_index_was_lost_is_promised_once_it_comes_again(
    start_gateway: Start,
) -> None:
    """Another object of its UID may have come later, and have been given up."""
    modality = Modality(free_port())
    with modality.listening():
        gateway = start_gateway(settings(free_port(), modality.port))
        send(gateway, SMALL, [1])
        assert modality.ask(gateway, uids(1)) == 0
        assert modality.reported()
        gateway.kill()
        for path in gateway.data_dir.glob("index.sqlite*"):
            path.unlink()
        gateway.start()
        assert modality.ask(gateway, uids(1)) == 0
        assert modality.reported(2)
        send(gateway, SMALL, [1])
        assert modality.ask(gateway, uids(1)) == 0
        assert modality.reported(3)
    uid = uids(1)[0][1]
    told = [outcome(report) for _, report, _ in modality.reports]
    assert told == [([uid], {}), ([], {uid: 0x0110}), ([uid], {})]


def test_a_report_is_made_after_a_kill_and_once_the_modality_listens(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port))
    send(gateway, SMALL, [1])
    assert modality.ask(gateway, uids(1)) == 0
    assert wait_until(lambda: count(gateway, "retried") > 1, LIMIT)
    gateway.kill()
    gateway.start()
    modality.answers = [0x0110, 0x0000]  # the first time it is not up to it
    with modality.listening():
        assert modality.reported(2)
        assert wait_until(lambda: count(gateway, "reported") == 1, LIMIT)
    assert outcome(modality.reports[1][1]) == ([uids(1)[0][1]], {})


def test_it_is_given_up_in_the_end_and_said_so(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port, grace="0s", max_age="500ms"))
    send(gateway, SMALL, [1])
    assert modality.ask(gateway, uids(1), "1.2.3.77") == 0

    def said() -> list[dict[str, Any]]:
        words = "storage commitment given up: the remote was not told"
        return [line for line in gateway.log_lines() if line.get("event") == words]

    assert wait_until(lambda: bool(said()), LIMIT)
    assert said()[0]["transaction"] == "1.2.3.77"
    for running in (True, False):
        if not running:
            assert gateway.stop()
        assert listed(gateway) == []
        (entry,) = listed(gateway, "--all")
        assert (entry["state"], entry["remote"], entry["committed"]) == ("given up", "modality", 1)
        assert "could not be connected to" in entry["reason"]
        shown = command(gateway, "--all")
        assert "given up" in shown
        assert "1.2.3.77" in shown
        assert "no remote waits for a report" in command(gateway)


def test_one_transaction_twice(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port))
    send(gateway, SMALL, [1, 2])
    assert modality.ask(gateway, uids(1, 2), "1.2.3.5") == 0
    assert modality.ask(gateway, uids(2, 1), "1.2.3.5") == 0, "the answer may have been lost"
    assert modality.ask(gateway, uids(1), "1.2.3.5") == 0x0131
    with modality.listening():
        assert modality.reported()
        assert wait_until(lambda: count(gateway, "reported") == 1, LIMIT)
        assert modality.ask(gateway, uids(1), "1.2.3.5") == 0, "it is free again"
        assert modality.reported(2)
    assert [len(outcome(report)[0]) for _, report, _ in modality.reports] == [2, 1]


def test_only_what_was_delivered(start_gateway: Start) -> None:
    modality, sink = Modality(free_port()), free_port()
    gateway = start_gateway(settings(sink, modality.port, when="delivered", destinations=["sink"]))
    send(gateway, SMALL, [1])
    with modality.listening():
        assert modality.ask(gateway, uids(1)) == 0
        assert wait_until(lambda: count(gateway, "asked") == 1, LIMIT)
        assert not modality.reports
        with WitnessThread(sink):
            assert settled(gateway, 1)
            assert modality.reported()
    assert outcome(modality.reports[0][1]) == ([uids(1)[0][1]], {})


def test_on_the_association_that_asked(start_gateway: Start) -> None:
    modality = Modality(free_port())  # nothing listens there
    gateway = start_gateway(settings(free_port(), modality.port, answer="same-association"))
    send(gateway, SMALL, [1])
    assert modality.ask(gateway, uids(1), stays=True) == 0
    assert outcome(modality.reports[0][1]) == ([uids(1)[0][1]], {})
    assert count(gateway, "retried") == 0


def test_on_a_new_association_once_the_one_that_asked_is_gone(start_gateway: Start) -> None:
    modality = Modality(free_port())
    gateway = start_gateway(settings(free_port(), modality.port, answer="same-association"))
    with modality.listening(roles=False):  # nor does it answer the role selection
        assert modality.ask(gateway, uids(1)) == 0
        send(gateway, SMALL, [1])
        assert modality.reported()
    assert outcome(modality.reports[0][1]) == ([uids(1)[0][1]], {})


def test_a_reload_takes_it_away_and_gives_it_back(start_gateway: Start) -> None:
    modality = Modality(free_port())
    values = settings(free_port(), modality.port)
    gateway = start_gateway(values)
    send(gateway, SMALL, [1])
    assert modality.ask(gateway, uids(1)) == 0
    gateway.configure({key: value for key, value in values.items() if key != "commitment"})
    gateway.signal(signal.SIGHUP)
    assert wait_until(lambda: count(gateway, "given_up") == 1, LIMIT)
    gateway.configure(values)
    gateway.signal(signal.SIGHUP)
    reloaded = "dcmrouter_config_reloads_total"
    assert wait_until(lambda: sum(gateway.metrics().get(reloaded, {}).values()) >= 2, LIMIT)
    with modality.listening():
        assert modality.ask(gateway, uids(1)) == 0
        assert modality.reported()
