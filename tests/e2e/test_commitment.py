"""Destinations that have to say that they keep what they took, in processes of their own."""

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from perf.gateway import GatewayProcess
from perf.processes import wait_until
from tests.e2e.running import LIMIT, SMALL, Start, destination, route_to, send

pytestmark = pytest.mark.timeout(120)

PUSH_MODEL = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"


class Archive:
    """An SCP of storage and of storage commitment, in threads of this process.

    ``report(archive, event, information)`` decides what to do about each request that is taken;
    it runs in a thread of its own once the request was answered.
    """

    def __init__(self, report: Callable[["Archive", Event, Dataset], None]) -> None:
        self._report = report
        self._threads: list[threading.Thread] = []
        self.stored: list[str] = []
        self.refuses: dict[str, int] = {}
        self.requests: list[Dataset] = []
        self.statuses: list[int] = []
        self.router = 0
        ae = AE("SINK")
        ae.supported_contexts = []
        ae.add_supported_context("1.2.840.10008.5.1.4.1.1.4")
        ae.add_supported_context("1.2.840.10008.1.1")
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self._server = server
        self.port = server.socket.getsockname()[1]

    def _store(self, event: Event) -> int:
        uid = str(event.dataset.SOPInstanceUID)
        if uid in self.refuses:
            return self.refuses[uid]
        self.stored.append(uid)
        return 0

    def _action(self, event: Event) -> tuple[int, None]:
        information = event.action_information
        self.requests.append(information)
        thread = threading.Thread(target=self._report, args=(self, event, information))
        self._threads.append(thread)
        threading.Timer(0.05, thread.start).start()
        return 0, None

    def here(self, event: Event, report: Dataset, kind: int = 1) -> None:
        """A report on the association of the request."""
        if not event.assoc.is_established:
            return  # the gateway was killed: it asks again
        status, _ = event.assoc.send_n_event_report(report, kind, PUSH_MODEL, INSTANCE)
        if "Status" in status:  # else the gateway was killed meanwhile
            self.statuses.append(int(status.Status))

    def elsewhere(self, report: Dataset, kind: int = 1) -> None:
        """A report on an association of its own, as SCP."""
        ae = AE("SINK")
        ae.add_requested_context(StorageCommitmentPushModel)
        assoc = ae.associate(
            *("127.0.0.1", self.router),
            ae_title="ROUTER",
            ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
        )
        if not assoc.is_established:
            return  # the gateway was killed: it asks again
        status, _ = assoc.send_n_event_report(report, kind, PUSH_MODEL, INSTANCE)
        if "Status" in status:
            self.statuses.append(int(status.Status))
        assoc.release()

    def close(self) -> None:
        self._server.shutdown()


@contextmanager
def archive(report: Callable[[Archive, Event, Dataset], None]) -> Iterator[Archive]:
    found = Archive(report)
    try:
        yield found
    finally:
        found.close()


def answer(information: Dataset, refused: dict[str, int] | None = None) -> Dataset:
    """The report on a request: all of it is committed but for ``refused``, by UID."""
    report = Dataset()
    report.TransactionUID = information.TransactionUID
    kept, failed = [], []
    for item in information.ReferencedSOPSequence:
        reason = (refused or {}).get(str(item.ReferencedSOPInstanceUID))
        if reason is None:
            kept.append(item)
        else:
            item.FailureReason = reason
            failed.append(item)
    if kept:
        report.ReferencedSOPSequence = kept
    if failed:
        report.FailedSOPSequence = failed
    return report


def settings(port: int, **commitment: Any) -> dict[str, Any]:
    asked = {"after": "100ms", "batch": 50, "answer_within": "1h", **commitment}
    return route_to(port) | {"remotes": {"sink": destination(port, commitment=asked)}}


def fates(gateway: GatewayProcess) -> dict[str, int]:
    """How many deliveries are in which state."""
    lines = [one for one in gateway.account()["destinations"] if one["destination"] == "sink"]
    return {
        name: count
        for line in lines
        for name, count in line.items()
        if count and name not in ("destination", "received")
    }


def becomes(gateway: GatewayProcess, wanted: dict[str, int], timeout: float = LIMIT) -> bool:
    return wait_until(lambda: fates(gateway) == wanted, timeout)


def test_reports_on_the_same_association(start_gateway: Start) -> None:
    with archive(lambda a, event, info: a.here(event, answer(info))) as sink:
        gateway = start_gateway(settings(sink.port))
        send(gateway, SMALL, range(5))
        assert becomes(gateway, {"delivered": 5}), fates(gateway)
        assert wait_until(lambda: sink.statuses == [0] * len(sink.requests), LIMIT)


def test_reports_on_an_association_of_the_archive_twice(start_gateway: Start) -> None:
    def report(sink: Archive, _: Event, info: Dataset) -> None:
        sink.elsewhere(answer(info))
        sink.elsewhere(answer(info))

    with archive(report) as sink:
        gateway = start_gateway(settings(sink.port, linger="0s"))
        sink.router = gateway.port
        send(gateway, SMALL, range(5))
        assert becomes(gateway, {"delivered": 5}), fates(gateway)
        assert wait_until(lambda: len(sink.statuses) == 2 * len(sink.requests), LIMIT)
        assert set(sink.statuses) == {0}


def test_a_report_for_another_transaction_proves_nothing(start_gateway: Start) -> None:
    def report(sink: Archive, _: Event, info: Dataset) -> None:
        forged = answer(info)
        forged.TransactionUID = "2.25.1"
        sink.elsewhere(forged)

    with archive(report) as sink:
        gateway = start_gateway(settings(sink.port))
        sink.router = gateway.port
        send(gateway, SMALL, range(2))
        assert wait_until(lambda: bool(sink.statuses), LIMIT)
        assert sink.statuses[0] == 0x0115
        assert fates(gateway) == {"uncommitted": 2}


def test_refused_references_are_sent_again_and_then_dead(start_gateway: Start) -> None:
    lost: set[str] = set()

    def report(sink: Archive, event: Event, info: Dataset) -> None:
        first = sink.stored[0]
        lost.add(first)
        sink.here(event, answer(info, {first: 0x0112}), 2)

    with archive(report) as sink:
        gateway = start_gateway(settings(sink.port, resend=1))
        send(gateway, SMALL, range(3))
        assert becomes(gateway, {"delivered": 2, "dead": 1}), fates(gateway)
        assert sink.stored.count(lost.pop()) == 2
        (dead,) = [item for item in gateway.queue() if item["state"] == "dead"]
        assert "0112H, no such object instance" in dead["reason"]


def test_no_report_is_asked_for_again_and_a_late_one_counts(start_gateway: Start) -> None:
    held: list[Dataset] = []

    def report(sink: Archive, _: Event, info: Dataset) -> None:
        held.append(info)
        if len(held) >= 3:
            sink.elsewhere(answer(held[0]))

    with archive(report) as sink:
        gateway = start_gateway(settings(sink.port, answer_within="300ms", linger="0s"))
        sink.router = gateway.port
        send(gateway, SMALL, range(2))
        assert becomes(gateway, {"delivered": 2}), fates(gateway)
        assert len({str(info.TransactionUID) for info in held}) == len(held)


def test_killed_while_it_waits_for_the_report(start_gateway: Start) -> None:
    told = threading.Event()

    def report(sink: Archive, _: Event, info: Dataset) -> None:
        told.wait(LIMIT)
        sink.elsewhere(answer(info))

    with archive(report) as sink:
        gateway = start_gateway(settings(sink.port))
        sink.router = gateway.port
        send(gateway, SMALL, range(4))
        assert wait_until(lambda: bool(sink.requests), LIMIT)
        gateway.kill()
        gateway.start()
        assert fates(gateway) == {"uncommitted": 4}
        told.set()
        assert becomes(gateway, {"delivered": 4}), fates(gateway)
        assert len(sink.stored) == 4


def test_killed_at_any_moment_of_delivery_and_commitment(start_gateway: Start) -> None:
    chance = random.Random(5)
    with archive(lambda sink, _, info: sink.elsewhere(answer(info))) as sink:
        asked = settings(sink.port, batch=4, after="50ms", answer_within="1s", linger="0s")
        gateway = start_gateway(asked)
        sink.router = gateway.port
        for kill in range(3):
            # Of five or more that come: some may be here before all is sent.
            enough = len(sink.requests) + chance.randint(0, 4)
            send(gateway, SMALL, range(kill * 20, kill * 20 + 20))
            assert wait_until(lambda n=enough: len(sink.requests) >= n, LIMIT)  # type: ignore[misc]
            gateway.kill()
            gateway.start()
            assert gateway.account()["balanced"]
        assert becomes(gateway, {"delivered": 60}), fates(gateway)
        assert len(set(sink.stored)) == 60


def test_without_the_setting_nothing_waits_any_more(start_gateway: Start) -> None:
    with archive(lambda *_: None) as sink:
        gateway = start_gateway(settings(sink.port))
        send(gateway, SMALL, range(3))
        assert becomes(gateway, {"uncommitted": 3}), fates(gateway)
        gateway.configure(settings(sink.port) | {"remotes": {"sink": destination(sink.port)}})
        gateway.signal(signal.SIGHUP)
        assert becomes(gateway, {"delivered": 3}), fates(gateway)


def _refusing_first(information: Dataset, sink: Archive) -> Dataset:
    """What has come once only is not there."""
    uids = [str(item.ReferencedSOPInstanceUID) for item in information.ReferencedSOPSequence]
    return answer(information, {uid: 0x0112 for uid in uids if sink.stored.count(uid) == 1})


def test_what_is_sent_again_waits_for_its_open_window_no_longer_than_it_is_shut(
    start_gateway: Start,
) -> None:
    with archive(lambda a, event, info: a.here(event, _refusing_first(info, a), 2)) as sink:
        always = {"always": {"timezone": "UTC", "open": ["mon-sun 00:00-24:00"]}}
        rules = [{"name": "everything", "to": "sink", "send": {"schedule": "always"}}]
        gateway = start_gateway(settings(sink.port) | {"schedules": always, "rules": rules})
        send(gateway, SMALL, range(3))
        assert becomes(gateway, {"delivered": 3}, 20), fates(gateway)


def test_what_repeats_one_that_is_not_committed_goes_in_its_place(start_gateway: Start) -> None:
    go_on = threading.Event()

    def report(sink: Archive, event: Event, info: Dataset) -> None:
        go_on.wait(LIMIT)
        sink.here(event, _refusing_first(info, sink), 2)

    with archive(report) as sink:
        gateway = start_gateway(settings(sink.port, resend=0))
        send(gateway, SMALL, [1])
        assert becomes(gateway, {"uncommitted": 1}), fates(gateway)
        send(gateway, SMALL, [1])
        assert wait_until(lambda: fates(gateway).get("duplicate") == 1, LIMIT), fates(gateway)
        go_on.set()
        assert becomes(gateway, {"delivered": 1, "dead": 1}, 20), fates(gateway)
