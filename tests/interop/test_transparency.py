"""What DCMTK, Orthanc and pynetdicom send arrives at each of them as they sent it.

Each sender sends the same files twice: straight to a reference receiver, which says what bytes
that sender makes of them, and to the gateway, whose destinations must get those very bytes.
"""

from pathlib import Path

import pytest

from tests.e2e.running import Start
from tests.interop.corpus import copies, files, samples
from tests.interop.peers import (
    Orthanc,
    PynetdicomReceiver,
    StorescpReceiver,
    dcmsend,
    pynetdicom_send,
    storescu,
)
from tests.interop.settings import dead, destination, route_to_all, settled, unidentified

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI"),
]

# Data sets that end early or are deflated: Orthanc takes them in and never answers.
ORTHANC_NEVER_ANSWERS = frozenset(
    {
        "MR_truncated",
        "SC_rgb_jpeg",
        "emri_small_jpeg_2k_lossless_too_short",
        "image_dfl",
        "rtplan_truncated",
    }
)


def _by_storescu(_: Path, reference: int, gateway: int) -> None:
    storescu(reference, samples())
    storescu(gateway, samples())


def _by_dcmsend(_: Path, reference: int, gateway: int) -> None:
    dcmsend(reference, files())
    dcmsend(gateway, files())


def _by_pynetdicom(_: Path, reference: int, gateway: int) -> None:
    pynetdicom_send(reference, samples())
    pynetdicom_send(gateway, samples())


def _by_orthanc(home: Path, reference: int, gateway: int) -> None:
    with Orthanc(home / "sender", overwrite=False) as orthanc:
        orthanc.send(samples(), (reference, gateway))


FEW_TRIES = {"first": "50ms", "cap": "100ms", "max_attempts": 3}

# How many of the files each of them sends: 233 files that name what they are.
SENDERS = {
    "storescu": (_by_storescu, 215),
    "dcmsend": (_by_dcmsend, 220),
    "pynetdicom": (_by_pynetdicom, 230),
    "orthanc": (_by_orthanc, 215),
}


@pytest.mark.parametrize("sender", SENDERS)
def test_every_file_arrives_as_it_was_sent(
    sender: str, tmp_path: Path, start_gateway: Start
) -> None:
    send, floor = SENDERS[sender]
    with (
        PynetdicomReceiver() as reference,
        PynetdicomReceiver() as sink,
        StorescpReceiver(tmp_path / "storescp") as storescp,
    ):
        gateway = start_gateway(
            route_to_all(
                {
                    "pynetdicom": destination(sink.port),
                    "storescp": destination(storescp.port, retry=FEW_TRIES),
                }
            )
        )
        send(tmp_path, reference.port, gateway.port)
        sent = reference.arrivals()
        assert settled(gateway, sent.total())
        account = gateway.account()
        assert account["balanced"]
        assert account["received"] == sent.total()
        kept = unidentified(gateway)
        assert kept.total() <= 4
        assert sink.arrivals() + kept == sent
        # storescp ends the association over a data set that is cut short, whoever sends it.
        refused = dead(gateway, "storescp")
        assert refused.total() <= 3
        assert storescp.arrivals() + refused + kept == sent
    assert sent.total() >= floor
    assert len({arrival.transfer_syntax_uid for arrival in sent}) >= 10


def test_orthanc_receives_from_the_gateway_what_it_would_from_the_sender(
    tmp_path: Path, start_gateway: Start
) -> None:
    """Orthanc encodes anew some of what it receives, so it is compared with another Orthanc.

    It keeps one instance of a SOP Instance UID, so here each file has one of its own.
    """
    chosen = [s for s in samples() if s.path.stem not in ORTHANC_NEVER_ANSWERS]
    sent = copies(tmp_path, chosen)
    with Orthanc(tmp_path / "direct") as direct, Orthanc(tmp_path / "sink") as sink:
        gateway = start_gateway(route_to_all({"orthanc": destination(sink.port, retry=FEW_TRIES)}))
        for port in (gateway.port, direct.port):
            dcmsend(port, [sample.path for sample in sent])
        assert settled(gateway, len(sent))
        arrived = direct.arrivals()
        assert sink.arrivals() == arrived
        assert arrived.total() + dead(gateway, "orthanc").total() == len(sent)
    assert arrived.total() >= 180
