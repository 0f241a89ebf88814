"""An independent implementation at the other end: pynetdicom, in threads of its own."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, _config, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ

from router.dicom.part10 import FileMeta
from router.net.connector import connect
from router.net.errors import AssociationRejected
from router.net.settings import Remote
from tests.dicom.files import data_set, dicom_files
from tests.net.support import ECHO_PAIR, VERIFICATION, Data, Recorder, Runner, gate, target

_LARGEST = 400_000


def samples() -> list[tuple[Path, FileMeta]]:
    """One real file of every transfer syntax, none of them big."""
    found: dict[str, tuple[Path, FileMeta]] = {}
    for path, meta in dicom_files():
        # A directory is no instance; a file without its UIDs no peer would send.
        an_instance = meta.sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1.")
        if an_instance and meta.sop_instance_uid and path.stat().st_size <= _LARGEST:
            found.setdefault(meta.transfer_syntax_uid, (path, meta))
    assert len(found) >= 10
    return list(found.values())


@pytest.fixture(autouse=True)
def as_it_is_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets are sent as they are in the file, not read and written anew."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


# -- pynetdicom calls us -------------------------------------------------------------------------


def send_all(port: int, max_pdu: int) -> tuple[int, list[int]]:
    """Echo and send every sample: the statuses.  Blocking."""
    ae = AE(ae_title="CT1")
    ae.add_requested_context(VERIFICATION)
    for _, meta in samples():
        ae.add_requested_context(meta.sop_class_uid, meta.transfer_syntax_uid)
    association = ae.associate("127.0.0.1", port, ae_title="ROUTER", max_pdu=max_pdu)
    assert association.is_established
    try:
        echo = association.send_c_echo().Status
        stores = [association.send_c_store(path).Status for path, _ in samples()]
    finally:
        association.release()
    return echo, stores


@pytest.mark.parametrize("max_pdu", [0, 16382])
def test_it_sends_us_real_files_in_every_transfer_syntax(run: Runner, max_pdu: int) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            echo, stores = await asyncio.to_thread(send_all, subject.port, max_pdu)
            assert echo == 0
            assert set(stores) == {0}
            await subject.quiet()
            assert not subject.observer.aborted
            received = subject.shelf.ended
            assert len(received) == len(samples())
            for shelved, (path, meta) in zip(received, samples(), strict=True):
                assert shelved.context.transfer_syntax == meta.transfer_syntax_uid
                assert shelved.command.affected_sop_instance_uid == meta.sop_instance_uid
                assert bytes(shelved.bytes) == data_set(path, meta), path.name

    run(scenario)


def test_it_understands_why_it_is_refused(run: Runner) -> None:
    def ask(port: int, title: str) -> list[tuple[int, int, int]]:
        """Result, source and reason of each refusal that it has read.

        `Association.is_rejected` and the primitive do not tell surely: when the refusal comes,
        and the connection ends, before pynetdicom's other thread has looked whether the
        connection stands, it says that it could not connect.
        """
        refusals = []

        def on_pdu(event: Any) -> None:
            if isinstance(event.pdu, A_ASSOCIATE_RJ):
                pdu = event.pdu
                refusals.append((pdu.result, pdu.source, pdu.reason_diagnostic))

        ae = AE(ae_title="CT1")
        ae.add_requested_context(VERIFICATION)
        handlers: Any = [(evt.EVT_PDU_RECV, on_pdu)]
        association = ae.associate("127.0.0.1", port, ae_title=title, evt_handlers=handlers)
        assert not association.is_established
        return refusals

    async def scenario() -> None:
        remotes = {"ct": Remote(ae_title="CT1", max_associations=1)}
        async with gate(remotes=remotes) as subject:
            assert await asyncio.to_thread(ask, subject.port, "NOBODY") == [(1, 1, 7)]
            first = await connect(target(subject.port), [ECHO_PAIR])
            assert await asyncio.to_thread(ask, subject.port, "ROUTER") == [(2, 3, 2)]
            await first.release()
            await subject.quiet()

    run(scenario)


def test_it_aborts(run: Runner) -> None:
    def ask(port: int) -> None:
        ae = AE(ae_title="CT1")
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", port, ae_title="ROUTER")
        association.send_c_echo()
        association.abort()

    async def scenario() -> None:
        async with gate() as subject:
            await asyncio.to_thread(ask, subject.port)
            await subject.quiet()
            assert subject.observer.aborted == {("in", "peer"): 1}

    run(scenario)


# -- we call pynetdicom --------------------------------------------------------------------------


@contextlib.contextmanager
def storage_scp(received: list[tuple[str, str, bytes]], max_pdu: int) -> Iterator[int]:
    """A Storage SCP that keeps class, transfer syntax and bytes; its port."""

    def on_store(event: Any) -> int:
        context = event.context
        data = event.request.DataSet.getvalue()
        received.append((context.abstract_syntax, context.transfer_syntax, data))
        return 0xB007 if len(received) == 1 else 0x0000

    ae = AE(ae_title="ROUTER")
    ae.maximum_pdu_size = max_pdu
    ae.add_supported_context(VERIFICATION)
    for _, meta in samples():
        ae.add_supported_context(meta.sop_class_uid, meta.transfer_syntax_uid)
    handlers = [(evt.EVT_C_STORE, on_store)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


@pytest.mark.parametrize("max_pdu", [0, 16382, 1024])
def test_we_send_it_real_files_in_every_transfer_syntax(run: Runner, max_pdu: int) -> None:
    received: list[tuple[str, str, bytes]] = []

    async def scenario(port: int) -> None:
        observer = Recorder()
        pairs = dict.fromkeys((m.sop_class_uid, m.transfer_syntax_uid) for _, m in samples())
        requestor = await connect(target(port), [ECHO_PAIR, *pairs], observer)
        assert await requestor.echo() == 0
        statuses = []
        for n, (path, meta) in enumerate(samples()):
            result = await requestor.store(
                requestor.accepted[meta.sop_class_uid, meta.transfer_syntax_uid],
                meta.sop_class_uid,
                meta.sop_instance_uid,
                Data(data_set(path, meta), cold=n % 2 == 1),
            )
            statuses.append(result.status)
        assert statuses == [0xB007] + [0] * (len(statuses) - 1)
        await requestor.release()
        await observer.all_closed()
        assert not observer.aborted

    with storage_scp(received, max_pdu) as port:
        run(lambda: scenario(port))
    expected = [
        (meta.sop_class_uid, meta.transfer_syntax_uid, data_set(path, meta))
        for path, meta in samples()
    ]
    assert received == expected


def test_it_rejects_us(run: Runner) -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(AssociationRejected) as caught:
            await connect(target(port), [ECHO_PAIR])
        assert (caught.value.result, caught.value.reason) == (1, 7)

    ae = AE(ae_title="SOMEBODY")
    ae.require_called_aet = True
    ae.add_supported_context(VERIFICATION)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    try:
        run(lambda: scenario(server.socket.getsockname()[1]))
    finally:
        server.shutdown()
