"""Storage commitment as a destination of our own grants it: a witness that is asked what it has.

Owns what is committed, what is refused and why, and the way of a report: on the association of
the request, on a new one to the gateway, on both, or on none, as a machine that lost it.  Built on
`perf.wire`, so it shares nothing with the product.  PS3.4 annex J.
"""

import asyncio
import contextlib
import random
import struct
from collections import Counter
from collections.abc import Callable

from perf import wire

SAME, NEW, BOTH, LOST = "on the same association", "on a new one", "on both", "lost"
_WAYS = {SAME: 45, NEW: 35, BOTH: 5, LOST: 15}
_LATEST = 0.3
"""Seconds until a report goes out."""
_PATIENCE = 5.0
_REFUSED_SHARE = 0.01
_PIECE = 16 * 1024
_CONTEXT = 1
NO_SUCH_INSTANCE, RESOURCE_LIMITATION, INVALID_ARGUMENT = 0x0112, 0x0213, 0x0115
_NOT_REACHED = (OSError, asyncio.IncompleteReadError, TimeoutError)

Write = Callable[[bytes], None]


class Committer:
    """The Storage Commitment SCP of a witness.

    It commits what it was told that it `took`; a small share it refuses once, so that it has to
    come again.  What it has committed it stands by.  ``port`` is where the gateway listens, 0
    while it is not known: then no report goes there.
    """

    def __init__(self, ae_title: str, dice: random.Random) -> None:
        self.port = 0
        self.committed: set[str] = set()
        self.refused: set[str] = set()
        self.ways: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        """How the gateway answered reports; "" counts those that did not reach it."""
        self.on_committed: Callable[[str], None] = lambda _: None
        self.on_fault: Callable[[str], None] = lambda _: None
        self._ae_title = ae_title
        self._dice = dice
        self._taken: dict[str, str] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def took(self, reference: wire.Reference) -> None:
        """This came, whole, and is about to be answered with success."""
        sop_class, sop_instance = reference
        self._taken[sop_instance] = sop_class

    def asked(self, data: bytes, context_id: int, write: Write) -> None:
        """An N-ACTION-RQ, which was answered; ``write`` leads back over its association, and does
        nothing once that is over."""
        transaction, references, _ = wire.parse_commitment(data)
        (way,) = self._dice.choices(list(_WAYS), list(_WAYS.values()))
        self.ways[way] += 1
        task = asyncio.get_running_loop().create_task(
            self._report(way, transaction, references, context_id, write)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, status: int) -> None:
        """The gateway answered a report.  A transaction that it does not know is a fault: it has
        asked, and must not have forgotten."""
        self.answers[f"{status:04X}"] += 1
        if status == INVALID_ARGUMENT:
            self.on_fault("the gateway does not know a transaction that it asked for (0115)")

    async def close(self) -> None:
        """Reports that are under way are dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def verdict(
        self, references: list[wire.Reference]
    ) -> tuple[list[wire.Reference], list[tuple[wire.Reference, int]]]:
        """Which of them are committed, and which are not, each with its reason."""
        kept: list[wire.Reference] = []
        failed: list[tuple[wire.Reference, int]] = []
        for one in references:
            sop_class, uid = one
            if self._taken.get(uid) != sop_class:
                self.on_fault(f"asked to commit {uid}, which never came")
                failed.append((one, NO_SUCH_INSTANCE))
            elif uid not in self.committed and uid not in self.refused and self._refuses():
                self.refused.add(uid)
                failed.append((one, RESOURCE_LIMITATION))
            else:
                self.committed.add(uid)
                self.on_committed(uid)
                kept.append(one)
        return kept, failed

    def _refuses(self) -> bool:
        return self._dice.random() < _REFUSED_SHARE

    async def _report(
        self,
        way: str,
        transaction: str,
        references: list[wire.Reference],
        context_id: int,
        write: Write,
    ) -> None:
        await asyncio.sleep(self._dice.uniform(0.0, _LATEST))
        if way == LOST:
            return
        kept, failed = self.verdict(references)
        data = wire.report(transaction, kept, failed)
        event = 2 if failed else 1
        self._number = self._number % 0xFFFF + 1
        head = wire.event_report_rq
        if way != NEW:
            pdus = wire.data_pdus(context_id, memoryview(data), _PIECE)
            write(head(context_id, self._number, event) + b"".join(pdus))
        if way != SAME:
            pdus = wire.data_pdus(_CONTEXT, memoryview(data), _PIECE)
            await self._elsewhere(head(_CONTEXT, self._number, event) + b"".join(pdus))

    async def _elsewhere(self, message: bytes) -> None:
        """The report over a new association, on which the witness is the SCP."""
        writer = None
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                await self._associate(reader, writer)
                writer.write(message)
                response = await _command(reader)
                if response[0x0100] != struct.pack("<H", wire.N_EVENT_REPORT_RSP):
                    raise wire.WireError(f"a report was answered with {response[0x0100].hex()}")
                self.answered(int.from_bytes(response[0x0900], "little"))
                writer.write(wire.RELEASE_RQ_PDU)
                await _pdu(reader)
        except _NOT_REACHED:
            self.answers[""] += 1
        except wire.WireError as error:
            self.on_fault(f"reporting commitment: {error}")
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _associate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = wire.Context(_CONTEXT, wire.COMMITMENT, (wire.IMPLICIT_LE,))
        roles = (wire.COMMITMENT,)
        writer.write(wire.associate_rq("ROUTER", self._ae_title, [context], 0, roles))
        kind, body = await _pdu(reader)
        if kind != wire.ASSOCIATE_AC:
            # Not a fault: one that is being stopped rejects, and aborts.
            raise ConnectionRefusedError(f"PDU type {kind:02X} in answer to A-ASSOCIATE-RQ")
        results, _ = wire.parse_accept(body)
        if results != {_CONTEXT: 0}:
            raise wire.WireError(f"the presentation context was answered with {results}")
        if wire.parse_roles(body) != {wire.COMMITMENT: (False, True)}:
            raise wire.WireError(f"the role of SCP was answered with {wire.parse_roles(body)}")


async def _pdu(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxI", await reader.readexactly(6))
    return kind, await reader.readexactly(length)


async def _command(reader: asyncio.StreamReader) -> dict[int, bytes]:
    """The command set of an answer; a connection that is aborted is one that is lost."""
    command = b""
    while True:
        kind, body = await _pdu(reader)
        if kind != wire.P_DATA_TF:
            raise ConnectionResetError(f"PDU type {kind:02X} in place of an answer")
        command += body[6:]
        if body[5] & 2:
            return wire.parse_command(command)
