"""A sender with a timetable: C-STOREs on a fixed schedule, and the time that each took.

``python -m perf.openloop --rate R`` sends R instances a second over a few associations, whether
the receiver keeps up or not, for ``--seconds``; with ``--rate 0`` each association sends the next
as soon as it was answered (a closed loop, which finds the highest rate).  Prints one JSON line and
writes a note per instance to ``--notes``: when it was due, when the kernel had taken the last byte
of its C-STORE-RQ, and when the response was read, by the monotonic clock that all processes of a
machine share.

A sender that waits for answers sends less while the receiver stands still, and so never sees
what its instances would have waited: hence the timetable, and latencies that begin when an
instance was due (coordinated omission).  Plain sockets and ``select`` rather than an event loop:
nothing then lies between the kernel and the clock.
"""

import argparse
import contextlib
import gc
import json
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from perf import data, wire

_OWN_CAP = 128 * 1024
_CONTEXT = 1
_LATE = 60.0
"""Seconds behind the end of the timetable after which what is left is given up."""
_NOTE = struct.Struct("<40sddd")


@dataclass(slots=True)
class Note:
    """One instance.  ``due``, ``sent`` and ``answered`` are monotonic, in seconds."""

    uid: str
    due: float
    sent: float = 0.0
    answered: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``rate`` in instances a second, 0 for as fast as answers come; ``sender`` is a number of
    its own for every run, so that no two runs send the same UID."""

    port: int
    called: str
    kind: str
    associations: int
    rate: float
    seconds: float
    sender: int = 0


@dataclass(slots=True)
class Result:
    """What a run did; ``ended`` is when the last answer came."""

    notes: list[Note] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0
    due: int = 0

    def fail(self, why: str) -> None:
        self.failures[why] = self.failures.get(why, 0) + 1

    def summary(self) -> dict[str, object]:
        return {
            "due": self.due,
            "acknowledged": len(self.notes),
            "failures": self.failures,
            "began": self.began,
            "ended": self.ended,
            "seconds": self.ended - self.began,
        }


class Maker:
    """The bytes of instances: all but the head are made once."""

    def __init__(self, kind: data.Kind, sender: int) -> None:
        self._template = data.template(kind)
        self._sender = sender
        self._tails: dict[int, bytes] = {}

    def uid(self, number: int) -> str:
        return data.instance_uid(self._template.kind, self._sender, number)

    def pieces(self, number: int, message_id: int, maximum: int) -> list[memoryview]:
        """The whole C-STORE-RQ: command, and data set in P-DATA-TF of up to ``maximum``."""
        t, uid = self._template, self.uid(number)
        head = bytearray(t.data[: t.pixel_offset + 8])
        head[t.uid_offset : t.uid_offset + len(uid)] = uid.encode()
        struct.pack_into("<Q", head, t.pixel_offset, number)
        if maximum not in self._tails:
            rest = memoryview(t.data)[t.pixel_offset + 8 :]
            self._tails[maximum] = b"".join(wire.data_pdus(_CONTEXT, rest, maximum))
        request = wire.store_rq(_CONTEXT, message_id, t.kind.sop_class_uid, uid)
        first = wire.data_pdu_header(_CONTEXT, len(head), last=False)
        return [memoryview(request + first + head), memoryview(self._tails[maximum])]


class Channel:
    """One association with at most one C-STORE under way."""

    def __init__(self, plan: Plan) -> None:
        kind = data.KINDS[plan.kind]
        self.note: Note | None = None
        self._message_id = 0
        self._out: list[memoryview] = []
        self._in = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", plan.port), timeout=30.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        contexts = [wire.Context(_CONTEXT, kind.sop_class_uid, (wire.EXPLICIT_LE,))]
        self.socket.sendall(wire.associate_rq(plan.called, "TIMED", contexts, 16384))
        pdu = self._wait_pdu()
        if pdu[0] != wire.ASSOCIATE_AC:
            raise wire.WireError(f"PDU type {pdu[0]} in answer to A-ASSOCIATE-RQ")
        results, maximum = wire.parse_accept(pdu[6:])
        if results.get(_CONTEXT) != 0:
            raise wire.WireError(f"presentation context refused: {results.get(_CONTEXT)}")
        self._maximum = min(maximum or _OWN_CAP, _OWN_CAP)
        self.socket.setblocking(False)

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def sending(self) -> bool:
        return bool(self._out)

    def begin(self, maker: Maker, number: int, due: float) -> None:
        """Start one instance; what the kernel takes at once is sent at once."""
        self._message_id = self._message_id % 65535 + 1
        self.note = Note(maker.uid(number), due)
        self._out = maker.pieces(number, self._message_id, self._maximum)
        self.push()

    def push(self) -> None:
        """Give the kernel what it takes, and note when it had everything."""
        while self._out:
            try:
                taken = self.socket.sendmsg(self._out)
            except BlockingIOError:
                return
            now = time.monotonic()
            while self._out and taken >= len(self._out[0]):
                taken -= len(self._out.pop(0))
            if self._out:
                self._out[0] = self._out[0][taken:]
            elif self.note is not None:
                self.note.sent = now

    def pull(self) -> tuple[Note, int] | None:
        """The instance that is answered now, and its status; None while there is no answer."""
        with contextlib.suppress(BlockingIOError):
            piece = self.socket.recv(65536)
            if not piece:
                raise wire.WireError("the receiver closed the connection")
            self._in += piece
        now = time.monotonic()
        pdu = self._take_pdu()
        if pdu is None:
            return None
        note, self.note = self.note, None
        if pdu[0] != wire.P_DATA_TF or note is None or self._out:
            raise wire.WireError(f"PDU type {pdu[0]} where the answer to a C-STORE-RQ was due")
        command = wire.parse_command(pdu[12:])
        if int.from_bytes(command[0x0120], "little") != self._message_id:
            raise wire.WireError("the response is to another message")
        note.answered = now
        return note, int.from_bytes(command[0x0900], "little")

    def close(self, *, release: bool) -> None:
        """A-RELEASE if asked for, then close."""
        with contextlib.closing(self.socket):
            if release:
                self.socket.settimeout(30.0)
                self.socket.sendall(wire.RELEASE_RQ_PDU)
                pdu = self._wait_pdu()
                if pdu[0] != wire.RELEASE_RP:
                    raise wire.WireError(f"PDU type {pdu[0]} in answer to A-RELEASE-RQ")

    def _take_pdu(self) -> bytes | None:
        if len(self._in) < 6:
            return None
        end = 6 + int.from_bytes(self._in[2:6], "big")
        if len(self._in) < end:
            return None
        pdu = bytes(self._in[:end])
        del self._in[:end]
        return pdu

    def _wait_pdu(self) -> bytes:
        while (pdu := self._take_pdu()) is None:
            piece = self.socket.recv(65536)
            if not piece:
                raise wire.WireError("the receiver closed the connection")
            self._in += piece
        return pdu


class Timetable:
    """When instances fall due; open while more will."""

    def __init__(self, plan: Plan, began: float) -> None:
        self._rate, self._began, self._seconds = plan.rate, began, plan.seconds
        self._count = max(1, round(plan.rate * plan.seconds)) if plan.rate else 0
        self.taken = 0

    def next_due(self, now: float) -> float | None:
        """When the next one is due: in the past when it is late.  None when there is none."""
        if not self._rate:
            return now if now - self._began < self._seconds else None
        if self.taken >= self._count:
            return None
        return self._began + self.taken / self._rate


class Run:
    """One plan under way."""

    def __init__(self, plan: Plan, channels: list[Channel], result: Result) -> None:
        self._maker = Maker(data.KINDS[plan.kind], plan.sender)
        self._idle = deque(channels)
        self._busy: list[Channel] = []
        self._result = result
        result.began = result.ended = time.monotonic()
        self._table = Timetable(plan, result.began)
        self._limit = result.began + plan.seconds + _LATE

    def all(self) -> None:
        """Everything that falls due, or until it is given up."""
        while self._step():
            pass
        self._result.due = self._table.taken

    def _step(self) -> bool:
        now = time.monotonic()
        due = self._table.next_due(now)
        while self._idle and due is not None and due <= now:
            channel = self._idle.popleft()
            self._busy.append(channel)
            number, self._table.taken = self._table.taken, self._table.taken + 1
            self._try(channel, partial(channel.begin, self._maker, number, due))
            now = time.monotonic()
            due = self._table.next_due(now)
        if not self._busy and (due is None or not self._idle):
            return False
        if now > self._limit:
            self._result.fail(f"not answered {_LATE:.0f} s after the end")
            return False
        # With every association at work a new arrival waits for an answer, not for its time.
        wake = self._limit if due is None or not self._idle else min(due, self._limit)
        sending = [channel for channel in self._busy if channel.sending]
        readable, writable, _ = select.select(self._busy, sending, [], max(0.0, wake - now))
        for channel in writable:
            self._try(channel, channel.push)
        for channel in readable:
            self._try(channel, partial(self._pull, channel))
        return True

    def _pull(self, channel: Channel) -> None:
        answer = channel.pull()
        if answer is None:
            return
        note, status = answer
        self._busy.remove(channel)
        self._idle.append(channel)
        self._result.ended = note.answered
        if status == 0:
            self._result.notes.append(note)
        else:
            self._result.fail(f"status {status:04X}")

    def _try(self, channel: Channel, action: Callable[[], None]) -> None:
        """An association that breaks is out; its instance counts as failed."""
        if channel not in self._busy:
            return
        try:
            action()
        except (OSError, wire.WireError) as error:
            self._busy.remove(channel)
            self._result.fail(f"{type(error).__name__}: {error}")


def run(plan: Plan) -> Result:
    """The whole plan.  What fails is counted; raises OSError or WireError only while opening."""
    result = Result()
    channels: list[Channel] = []
    # A pause of ours would be taken for one of the receiver's.
    gc.collect()
    gc.disable()
    try:
        channels.extend(Channel(plan) for _ in range(plan.associations))
        Run(plan, channels, result).all()
    finally:
        gc.enable()
        for channel in channels:
            try:
                # One that broke, or was given up, still has its instance.
                channel.close(release=channel.note is None)
            except (OSError, wire.WireError) as error:
                result.fail(f"{type(error).__name__}: {error}")
    return result


def write_notes(path: Path, notes: list[Note]) -> None:
    """Append them; `read_notes` gives them back."""
    with path.open("ab") as file:
        file.writelines(_NOTE.pack(n.uid.encode(), n.due, n.sent, n.answered) for n in notes)


def read_notes(path: Path) -> Iterator[Note]:
    """What `write_notes` wrote.  Raises OSError."""
    for uid, due, sent, answered in _NOTE.iter_unpack(path.read_bytes()):
        yield Note(uid.rstrip(b"\0").decode(), due, sent, answered)


def main() -> int:
    """Command line; exit 0 only when every instance that was due was answered 0000."""
    parser = argparse.ArgumentParser(prog="python -m perf.openloop", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--called", default="ROUTER")
    parser.add_argument("--kind", choices=sorted(data.KINDS), default="mr")
    parser.add_argument("--associations", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.0, help="instances a second; 0: closed")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--sender", type=int, default=0, help="a number of its own for each run")
    parser.add_argument("--notes", type=Path, default=None, help="file that notes are added to")
    args = parser.parse_args()
    values = (args.port, args.called, args.kind, args.associations, args.rate, args.seconds)
    result = run(Plan(*values, args.sender))
    if args.notes:
        write_notes(args.notes, result.notes)
    print(json.dumps(result.summary()), flush=True)
    return 0 if result.due == len(result.notes) and not result.failures else 1


if __name__ == "__main__":
    sys.exit(main())
