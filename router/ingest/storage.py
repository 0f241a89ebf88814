"""Storage as SCP: from the C-STORE-RQ to the answer that may only follow the commit.

Owns what happens to one instance on its way in: is it taken, what do the rules say, what is the
answer.  Must not know destinations or the index beyond the feed.  PS3.4 annex B, PS3.7 §9.1.1.
"""

from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from router.dicom.scan import Scanner
from router.dicom.uids import is_storage
from router.dimse.command import Command
from router.dimse.responder import StoreResponder
from router.dimse.status import (
    CANNOT_UNDERSTAND,
    DATA_SET_MISMATCH,
    INVALID_SOP_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
)
from router.ingest.routes import route_meta
from router.ingest.settings import StorageSettings
from router.ingest.studies import OpenStudies
from router.net.acceptor import AcceptedAssociation
from router.net.admission import is_plausible_uid
from router.net.service import Operation
from router.net.settings import LocalAE
from router.spool.errors import SpoolError, SpoolFull
from router.spool.record import InstanceMeta, Position, Ref
from router.spool.spool import Spool
from router.ul import ContextResult, NegotiatedContext, PresentationContextRQ
from router.ul.negotiation import order_transfer_syntaxes
from rules.attributes import Key
from rules.decision import Decision, Facts

_log = structlog.get_logger("ingest")

_C_STORE_RQ = 0x0001
_UNRECOGNIZED_OPERATION = 0x0211
_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_MODALITY = 0x00080060
_STUDY = 0x0020000D
_SERIES = 0x0020000E
_LONGEST = 256  # four times what a UID may have; the index is no place for what peers make up
_STEP = 4 * 2**20  # bytes between two looks at whether an instance may grow on
ALWAYS_WANTED = frozenset({_SOP_CLASS, _SOP_INSTANCE, _MODALITY, _STUDY, _SERIES})
"""Attributes that the index holds, whatever the rules ask for."""


class Rules(Protocol):
    """The rule set in force."""

    @property
    def tags(self) -> Collection[Key]:
        """Attributes that deciding needs."""
        ...

    def decide(self, facts: Facts) -> Decision:
        """Where an instance goes."""
        ...


class Feed(Protocol):
    """Takes what was committed to the index."""

    def add(self, ref: Ref, meta: InstanceMeta, end: Position) -> None:
        """One more instance, in the order of commits."""
        ...

    @property
    def refusal(self) -> str:
        """Why no more may come, "" when it may."""
        ...


class StorageObserver(Protocol):
    """Counts what happens; must neither wait nor raise."""

    def on_received(self, local_ae: str, remote: str, count: int) -> None:
        """An instance of `count` bytes is safe."""
        ...

    def on_stored(self, status: int, seconds: float) -> None:
        """A C-STORE was answered, `seconds` after its command set was complete."""
        ...


class StorageService:
    """The Storage service class as SCP.

    `clock` gives seconds since the epoch, `timer` seconds of any steady clock.  `studies` is told
    what each association sends to.
    """

    def __init__(
        self,
        settings: StorageSettings,
        rules: Rules,
        spool: Spool,
        feed: Feed,
        observer: StorageObserver,
        clock: Callable[[], float],
        timer: Callable[[], float],
        studies: OpenStudies | None = None,
    ) -> None:
        self.studies = OpenStudies() if studies is None else studies
        self.spool = spool
        self.feed = feed
        self.observer = observer
        self.clock = clock
        self.timer = timer
        self._taken: dict[str, bool] = {}
        self.apply(settings, rules)

    def apply(self, settings: StorageSettings, rules: Rules) -> None:
        """Decide by these from the next instance on; those under way keep what they began with."""
        self.settings = settings
        self.rules = rules
        self.wanted = frozenset(rules.tags) | ALWAYS_WANTED
        self._only = None if settings.sop_classes is None else frozenset(settings.sop_classes)
        self._taken.clear()

    # -- Service -------------------------------------------------------------------------------

    def takes(self, abstract_syntax: str) -> bool:
        """See `Service`: every storage class, and those that nobody here knows unless refused.

        What is no UID is not taken: it would be proposed to destinations, and their acceptors drop
        for it the whole association request, with all that waits beside it.
        """
        taken = self._taken.get(abstract_syntax)
        if taken is None:
            known = is_storage(abstract_syntax)
            if not is_plausible_uid(abstract_syntax):
                taken = False
            elif self._only is not None:
                taken = abstract_syntax in self._only
            elif known is None:
                taken = self.settings.unknown_sop_classes == "accept"
            else:
                taken = known
            if len(self._taken) > 4096:  # peers name them, so their number is not ours
                self._taken.clear()
            self._taken[abstract_syntax] = taken
        return taken

    def choose(self, local: LocalAE, context: PresentationContextRQ) -> tuple[int, str]:
        """See `Service`: any transfer syntax, since what comes is kept as it is."""
        preference = () if local.transfer_syntaxes == "proposed" else local.transfer_syntaxes
        order = order_transfer_syntaxes(tuple(filter(None, context.transfer_syntaxes)), preference)
        return ContextResult.ACCEPTANCE, order[0]

    def begin(
        self, association: AcceptedAssociation, context: NegotiatedContext, command: Command
    ) -> Operation | None:
        """See `Service`."""
        if command.field != _C_STORE_RQ:
            association.reply(context.id, command, _UNRECOGNIZED_OPERATION)
            return None
        refusal = self._refusal(command)
        if refusal is not None:
            operation = _Refused(self, association, context, command, *refusal)
            if command.has_data_set:
                return operation
            operation.end()
            return None
        return _Store(self, association, context, command)

    def _refusal(self, command: Command) -> tuple[int, str] | None:
        uid = command.affected_sop_instance_uid
        if not command.has_data_set and command.data_set_fault:
            return CANNOT_UNDERSTAND, command.data_set_fault
        if not uid or len(uid) > 64:
            return INVALID_SOP_INSTANCE, f"SOP Instance UID has {len(uid)} characters, not 1 to 64"
        sop_class = command.affected_sop_class_uid
        if not self.takes(sop_class):
            if not is_plausible_uid(sop_class):
                return SOP_CLASS_NOT_SUPPORTED, f"not a SOP Class UID: {sop_class[:40]!r}"
            return SOP_CLASS_NOT_SUPPORTED, f"{sop_class} is not accepted here"
        why = self.spool.refusal or self.feed.refusal
        if why:
            return OUT_OF_RESOURCES, why
        return None


class _Answering:
    """One C-STORE-RQ until its answer."""

    __slots__ = ("_passed", "association", "began", "command", "context", "service")

    def __init__(
        self,
        service: StorageService,
        association: AcceptedAssociation,
        context: NegotiatedContext,
        command: Command,
    ) -> None:
        self.service = service
        self.association = association
        self.context = context
        self.command = command
        self.began = service.timer()
        self._passed = 0

    def pass_by(self, count: int) -> None:
        """`count` bytes more of a data set that is refused at its end; it has to have one."""
        self._passed += count
        longest = self.service.settings.max_instance
        if self._passed - count <= longest < self._passed:
            self.association.cut(
                "too_large",
                f"a data set that is not taken does not end: {self._passed >> 20} MiB of it went "
                f"by, storage.max_instance is {longest >> 20} MiB",
            )

    def answer(self, status: int, comment: str = "") -> None:
        """Write the C-STORE-RSP, and the log line if it is not success."""
        service, association, command = self.service, self.association, self.command
        responder = association.responders.get(self.context.id)
        if responder is None:
            responder = StoreResponder(self.context.id, association.maximum_length)
            association.responders[self.context.id] = responder
        association.answer(
            responder.response(
                command.message_id,
                command.affected_sop_class_uid,
                command.affected_sop_instance_uid,
                status,
                comment,
            )
        )
        service.observer.on_stored(status, service.timer() - self.began)
        if status != SUCCESS:
            association.warn_rarely(
                f"status {status:04X}",
                "instance refused",
                sop_instance_uid=command.affected_sop_instance_uid[:_LONGEST],
                message_id=command.message_id,
                status=f"{status:04X}",
                why=comment,
            )


class _Refused(_Answering):
    """An instance that is not taken: its data set passes by, then it is answered."""

    __slots__ = ("_comment", "_status")

    def __init__(
        self,
        service: StorageService,
        association: AcceptedAssociation,
        context: NegotiatedContext,
        command: Command,
        status: int,
        comment: str,
    ) -> None:
        super().__init__(service, association, context, command)
        self._status = status
        self._comment = comment
        association.started()

    def data(self, piece: memoryview) -> None:
        """Dropped."""
        self.pass_by(len(piece))

    def end(self) -> None:
        """Answer with the refusal."""
        self.answer(self._status, self._comment)

    def abandon(self) -> None:
        """Nothing was kept."""


class _Store(_Answering):
    """An instance on its way into the spool."""

    __slots__ = (
        "_attributes",
        "_look_at",
        "_meta",
        "_refusal",
        "_rules",
        "_scanner",
        "_settings",
        "_settled",
        "_writer",
    )

    def __init__(
        self,
        service: StorageService,
        association: AcceptedAssociation,
        context: NegotiatedContext,
        command: Command,
    ) -> None:
        super().__init__(service, association, context, command)
        self._writer = service.spool.begin(association.resume_reading)
        # What is scanned for and what decides belong together, whatever is reloaded meanwhile.
        self._rules = service.rules
        self._settings = service.settings
        self._scanner = Scanner(context.transfer_syntax, service.wanted)
        self._attributes: dict[Key, tuple[str, ...]] | None = None
        self._meta: InstanceMeta | None = None
        self._settled = False
        self._refusal = ""
        self._look_at = min(_STEP, self._settings.max_instance + 1)
        association.started()

    def data(self, piece: memoryview) -> None:
        """See `Operation`."""
        writer = self._writer
        if writer.length >= self._look_at and not self._may_grow(len(piece)):
            return
        congested = writer.congested
        writer.append(piece)
        if writer.congested and not congested:
            self.association.pause_reading()
        scanner = self._scanner
        if scanner.done:
            return
        scanner.feed(piece)
        if self._scanner.done:
            self._look()

    def _look(self) -> dict[Key, tuple[str, ...]]:
        """What the data set says, once all that is wanted has passed.

        Its study is known to be sent to from then on, however long the rest of it takes.
        """
        self._attributes = attributes = self._scanner.attributes()
        study, series = _first(attributes, _STUDY), _first(attributes, _SERIES)
        self.service.studies.sent(self.association.id, study, series)
        return attributes

    def _may_grow(self, count: int) -> bool:
        """Whether a long data set may be kept on; if not, what there is of it is given up.

        Its room is needed: what has begun to arrive could else fill the disk that `low_disk`
        keeps free.
        """
        if self._refusal:
            self.pass_by(count)
            return False
        length, longest = self._writer.length, self._settings.max_instance
        self._refusal = self._too_long(length) or self.service.spool.no_room
        if self._refusal:
            self._settled = True
            self._writer.abandon()
            return False
        self._look_at = min(length + _STEP, longest + 1)
        return True

    def _too_long(self, length: int) -> str:
        longest = self._settings.max_instance
        return f"longer than storage.max_instance, {longest} bytes" if length > longest else ""

    def abandon(self) -> None:
        """See `Operation`."""
        if not self._settled:
            self._writer.abandon()

    def end(self) -> None:
        """Decide, then commit; the answer follows the commit."""
        refusal = self._refusal or self._too_long(self._writer.length)
        if refusal:
            self._refuse(OUT_OF_RESOURCES, refusal)
            return
        scanner = self._scanner
        if not scanner.done:
            scanner.finish()
        settings = self._settings
        error = scanner.error
        if not error and self._writer.length == 0:
            error = "the data set is empty"
        elif not error and not (scanner.found.keys() & {_SOP_CLASS, _SOP_INSTANCE}):
            error = "it has neither a SOP Class UID nor a SOP Instance UID"
        if error and settings.unparsable == "refuse":
            self._refuse(CANNOT_UNDERSTAND, error)
            return
        attributes = self._attributes
        if attributes is None:
            attributes = self._look()
        sop_class = _first(attributes, _SOP_CLASS)
        announced = self.command.affected_sop_class_uid
        if settings.mismatched_class == "refuse" and sop_class and sop_class != announced:
            self._refuse(DATA_SET_MISMATCH, f"data set says {sop_class}, the request {announced}")
            return
        self._meta = meta = self._describe(attributes, error)
        description = meta.to_bytes()
        self._settled = True
        self._writer.commit(description, self._committed, len(meta.routes))

    def _describe(self, attributes: dict[Key, tuple[str, ...]], error: str) -> InstanceMeta:
        association, command, service = self.association, self.command, self.service
        received_at = service.clock()
        facts = Facts(
            calling_ae=association.calling_ae,
            called_ae=association.called_ae,
            source_address=association.peer_address,
            remote=association.remote,
            sop_class_uid=command.affected_sop_class_uid,
            transfer_syntax_uid=self.context.transfer_syntax,
            attributes=attributes,
            received_at=received_at,
            too_large=self._scanner.unread,
        )
        decision = _hold(self._rules, error) if error else _decide(self._rules, facts)
        return InstanceMeta(
            received_at=received_at,
            association=association.id,
            calling_ae=association.calling_ae,
            called_ae=association.called_ae,
            source=association.peer_address,
            remote=association.remote,
            sop_class_uid=command.affected_sop_class_uid,
            sop_instance_uid=command.affected_sop_instance_uid,
            transfer_syntax_uid=self.context.transfer_syntax,
            study_instance_uid=_first(attributes, _STUDY),
            series_instance_uid=_first(attributes, _SERIES),
            modality=_first(attributes, _MODALITY),
            disposition=decision.disposition,
            reason=decision.reason,
            quarantined=bool(error),
            rules_version=decision.version,
            routes=tuple(map(route_meta, decision.routes)),
            tags=decision.tags,
            keep=decision.keep_for,
        )

    def _refuse(self, status: int, comment: str) -> None:
        self._settled = True
        self._writer.abandon()
        self.answer(status, comment)

    def _committed(self, ref: Ref | None, end: Position | None, error: SpoolError | None) -> None:
        meta = self._meta
        if ref is None or end is None or meta is None:
            full = isinstance(error, SpoolFull)
            self.answer(OUT_OF_RESOURCES if full else PROCESSING_FAILURE, str(error))
            return
        service, association = self.service, self.association
        service.feed.add(ref, meta, end)  # before the answer: what is acked must be on its way
        self.answer(SUCCESS)
        service.observer.on_received(association.called_ae, association.remote, ref.length)
        if meta.quarantined:
            association.warn_rarely(
                "quarantined", "instance quarantined", instance=ref.id, why=meta.reason
            )


def _first(attributes: dict[Key, tuple[str, ...]], tag: int) -> str:
    values = attributes.get(tag)
    return values[0][:_LONGEST] if values else ""


def _hold(rules: Rules, reason: str) -> Decision:
    return Decision("hold", (), f"cannot be parsed: {reason}", getattr(rules, "version", ""))


def _decide(rules: Rules, facts: Facts) -> Decision:
    try:
        return rules.decide(facts)
    except Exception as error:  # noqa: BLE001 - see below
        # A fault of ours in a rule must cost a person's look, never an instance.
        _log.exception("the rules failed; the instance is held")
        return _hold(rules, f"the rules failed: {error!r}")
