"""Sends files over several associations at once.

Owns how files are shared out over associations and presentation contexts, and what becomes of
each.  Must not know the command line; used by `send` and `demo`.  PS3.4 annex B.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from router.cli.failures import os_error
from router.cli.files import DicomFile, FileReader
from router.dicom.uids import storage_sop_classes, transfer_syntax
from router.dimse.status import DELIVERED, SUCCESS, StatusClass, describe_status, status_class
from router.net.connector import connect
from router.net.errors import AssociationError
from router.net.pool import MAX_CONTEXTS, Proposal
from router.net.requestor import Requestor, StoreResult, Target

Verdict = Literal["sent", "warning", "failed"]

_FRUITLESS = 3
"""Associations in a row that break without one answer, before a worker gives up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file; ``status`` is None when there was no answer.

    ``began`` and ``ended`` are on the monotonic clock, in seconds.
    """

    file: DicomFile
    verdict: Verdict
    status: int | None
    reason: str
    began: float
    ended: float


@dataclass(slots=True)
class _Batch:
    """Files whose presentation contexts fit into one association."""

    proposals: list[Proposal]
    files: deque[DicomFile]


class Sender:
    """Sends each file once, or says why not; `on_outcome` is told of each as it happens.

    An association that breaks under a file is opened anew and that file sent a second time, once:
    it may have arrived, and a receiver knows its instances again.
    """

    def __init__(
        self,
        target: Target,
        files: Sequence[DicomFile],
        *,
        associations: int,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self._target = target
        self._batches = _batches(files)
        self._associations = associations
        self._on_outcome = on_outcome
        self._again: set[DicomFile] = set()
        self._working = 0
        self._tried = asyncio.Event()
        self._connected = False

    async def run(self) -> None:
        """Until every file has its outcome."""
        self._working = 1
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work())
            # The others follow the first: a peer that grants one association may refuse all of
            # several that come at once, and one that is not there need not be asked again.
            await self._tried.wait()
            if self._connected:
                self._working += self._associations - 1
                for _ in range(self._associations - 1):
                    group.create_task(self._work())

    async def _work(self) -> None:
        fruitless = 0
        try:
            while (batch := self._next_batch()) is not None:
                try:
                    association = await connect(self._target, batch.proposals)
                except AssociationError as error:
                    self._give_up(error)
                    return
                self._connected = True
                self._tried.set()
                answers, failure = await self._use(association, batch)
                fruitless = 0 if answers or failure is None else fruitless + 1
                if fruitless >= _FRUITLESS and failure is not None:
                    self._give_up(failure)
                    return
        finally:
            self._tried.set()
            self._working -= 1

    def _next_batch(self) -> _Batch | None:
        return max(
            (batch for batch in self._batches if batch.files),
            key=lambda batch: len(batch.files),
            default=None,
        )

    def _give_up(self, error: Exception) -> None:
        """Leave what is left to the other workers; the last one fails it.

        A peer may grant fewer associations than we ask for.
        """
        if self._working > 1:
            return
        now = time.monotonic()
        for batch in self._batches:
            while batch.files:
                file = batch.files.popleft()
                self._on_outcome(Outcome(file, "failed", None, str(error), now, now))

    async def _use(
        self, association: Requestor, batch: _Batch
    ) -> tuple[int, AssociationError | None]:
        """Send from the batch while there are files; answers had, and what broke it."""
        lanes = [self._lane(association, batch) for _ in range(association.window)]
        results = await asyncio.gather(*lanes)
        answers = sum(count for count, _ in results)
        failure = next((error for _, error in results if error is not None), None)
        if not association.closed:
            try:
                await association.release()
            except AssociationError:
                association.close()  # every file has its answer; how the peer parts is its affair
        return answers, failure

    async def _lane(
        self, association: Requestor, batch: _Batch
    ) -> tuple[int, AssociationError | None]:
        answers = 0
        while batch.files and not association.closed:
            file = batch.files.popleft()
            context_id = association.accepted.get(file.proposal)
            began = time.monotonic()
            if context_id is None:
                self._done(file, "failed", None, _not_accepted(file), began)
                continue
            try:
                result = await self._store(association, context_id, file)
            except AssociationError as error:
                self._broken(batch, file, error, began)
                return answers, error
            except OSError as error:
                # The association is closed with it: half of the data set was sent.
                self._done(file, "failed", None, f"cannot be read: {os_error(error)}", began)
                continue
            answers += 1
            self._answered(file, result, began)
        return answers, None

    async def _store(self, association: Requestor, context_id: int, file: DicomFile) -> StoreResult:
        reader = FileReader(file)
        try:
            return await association.store(
                context_id, file.sop_class_uid, file.sop_instance_uid, reader
            )
        finally:
            reader.close()

    def _broken(
        self, batch: _Batch, file: DicomFile, error: AssociationError, began: float
    ) -> None:
        if file in self._again:
            self._done(file, "failed", None, str(error), began)
        else:
            self._again.add(file)
            batch.files.append(file)

    def _answered(self, file: DicomFile, result: StoreResult, began: float) -> None:
        if result.status == SUCCESS:
            self._done(file, "sent", result.status, "", began)
            return
        text = describe_status(result.status)
        if result.comment:
            text += f" ({result.comment})"
        warned = result.status in DELIVERED or status_class(result.status) is StatusClass.WARNING
        self._done(file, "warning" if warned else "failed", result.status, text, began)

    def _done(
        self, file: DicomFile, verdict: Verdict, status: int | None, reason: str, began: float
    ) -> None:
        self._on_outcome(Outcome(file, verdict, status, reason, began, time.monotonic()))


def _batches(files: Iterable[DicomFile]) -> list[_Batch]:
    """Files by presentation contexts, as many kinds together as an association can have."""
    batches: list[_Batch] = []
    placed: dict[Proposal, _Batch] = {}
    for file in files:
        batch = placed.get(file.proposal)
        if batch is None:
            if not batches or len(batches[-1].proposals) == MAX_CONTEXTS:
                batches.append(_Batch([], deque()))
            batch = placed[file.proposal] = batches[-1]
            batch.proposals.append(file.proposal)
        batch.files.append(file)
    return batches


def _not_accepted(file: DicomFile) -> str:
    kind = storage_sop_classes().get(file.sop_class_uid, file.sop_class_uid)
    return f"the remote does not accept {kind} in {transfer_syntax(file.transfer_syntax_uid).name}"
