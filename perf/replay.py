"""The cheapest DICOM sender: messages encoded beforehand, handed to the kernel by ``sendfile``.

A receiver is compared with `perf.floor`, whose senders do next to nothing, so its own must not do
more.  Each sender is a process with one association; it waits for the C-STORE-RSP before it sends
the next, as any SCU without asynchronous operations does.
"""

import argparse
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread

from perf import wire
from perf.floor import run_all

_CONTEXT = 1
_MAXIMUM_LENGTH = 128 * 1024
_TIMEOUT = 120.0
_META_LENGTH_AT = 140
"""Where a Part 10 file has the value of (0002,0000), which counts what follows: PS3.10 §7.1."""


def encode(path: Path, folder: Path) -> Path:
    """The C-STORE-RQ and the data set of a Part 10 file as P-DATA-TF PDUs; kept for later runs.

    Kinds of instance must not share a `folder`.
    """
    to = folder / f"{path.parent.name}-{path.stem}.pdus"
    if to.exists():
        return to
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<I", raw, _META_LENGTH_AT)
    ds = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    data = memoryview(raw)[_META_LENGTH_AT + 4 + length :]
    unfinished = to.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(wire.store_rq(_CONTEXT, 1, ds.SOPClassUID, ds.SOPInstanceUID))
        file.writelines(wire.data_pdus(_CONTEXT, data, _MAXIMUM_LENGTH))
    unfinished.rename(to)
    return to


def send(port: int, called: str, sop_class: str, streams: list[Path]) -> tuple[float, float]:
    """All messages over one association; when it began and ended (monotonic).

    Raises WireError for any answer but success, OSError for a connection that ends.
    """
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.monotonic()
        contexts = [wire.Context(_CONTEXT, sop_class, (wire.EXPLICIT_LE,))]
        peer.sendall(wire.associate_rq(called, "REPLAY", contexts, 16384))
        kind, body = _pdu(peer)
        if kind != wire.ASSOCIATE_AC:
            raise wire.WireError(f"PDU type {kind} in answer to A-ASSOCIATE-RQ")
        results, maximum = wire.parse_accept(body)
        if results.get(_CONTEXT) != 0 or 0 < maximum < _MAXIMUM_LENGTH:
            raise wire.WireError(f"context {results.get(_CONTEXT)}, maximum length {maximum}")
        for stream in streams:
            with stream.open("rb") as file:
                peer.sendfile(file)
            kind, body = _pdu(peer)
            status = wire.parse_command(body[6:]).get(0x0900) if kind == wire.P_DATA_TF else None
            if status != b"\0\0":
                raise wire.WireError(f"PDU type {kind}, status {status!r} in answer to C-STORE-RQ")
        ended = time.monotonic()
        peer.sendall(wire.RELEASE_RQ_PDU)
        _pdu(peer)
        return began, ended


def _pdu(peer: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxI", _exactly(peer, 6))
    return kind, _exactly(peer, length)


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = peer.recv(count - len(data))
        if not piece:
            raise wire.WireError("the receiver closed the connection")
        data += piece
    return bytes(data)


def _lists(files: list[Path], folder: Path) -> Iterator[list[Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        streams = [encode(Path(line), folder) for line in file.read_text().split("\n") if line]
        for stream in streams:
            stream.read_bytes()  # so that no run pays for the first reading
        yield streams


def main() -> int:
    """Command line; one JSON line with the seconds."""
    parser = argparse.ArgumentParser(prog="python -m perf.replay", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--called", default="ROUTER")
    parser.add_argument("--sop-class", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the encoded messages")
    parser.add_argument("--list", type=Path, action="append", help="file of paths, per sender")
    args = parser.parse_args()
    jobs = [
        (args.port, args.called, args.sop_class, streams)
        for streams in _lists(args.list, args.folder)
    ]
    os.sync()
    print(json.dumps({"seconds": run_all(send, jobs)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
