"""A gateway that is not there: fixed answers for the web face, and what was asked of it."""

from dataclasses import replace

from router.config.compare import Difference
from router.config.versions import File, Version
from router.observe.counters import Counters
from router.observe.exposition import Exporter
from router.observe.state import DestinationState, DiskState, Snapshot
from router.spool.index_hours import SinceAccount
from router.spool.index_types import (
    Account,
    Attempt,
    Changed,
    Delivery,
    DeliveryState,
    DestinationAccount,
    Disposition,
    Event,
    InstanceRow,
    Pause,
    QueueItem,
    QueueLine,
)
from router.spool.record import InstanceMeta, Ref, RouteMeta
from router.web.sources import (
    AssociationState,
    InstanceFile,
    ListenerState,
    ListState,
    Readiness,
    Redone,
    Reloaded,
    RuleLine,
    RulesView,
    Status,
    VersionsView,
)
from router.web.standing import Standing

EVIL = "<script>alert(1)</script>\"'&"
STUDY = "1.2.840.99.1"
SOP_INSTANCE = "1.2.840.99.1.2.3"

QUEUES = (
    QueueLine("pacs", DeliveryState.READY, 3, 3_000_000, 940.0, 0.0),
    QueueLine("pacs", DeliveryState.DEAD, 1, 1000, 900.0, None),
    QueueLine("removed", DeliveryState.READY, 2, 20, 990.0, None),
)

STATUS = Status(
    version="1.2.3",
    started_at=0.0,
    rules_version="abc",
    snapshot=Snapshot(
        now=1000.0,
        queues=QUEUES,
        destinations=(
            DestinationState("pacs", up=False, reason="refused: " + EVIL, next_probe_at=1030.0),
            DestinationState(EVIL, up=True, associations=2),
        ),
        disk=DiskState(
            spool_bytes=64_000_000, free_bytes=5_000_000_000, low=True, spare_bytes=16_000_000
        ),
        held_instances=7,
        dead_instances=1,
        account_differences={"pacs": 1},
    ),
    reload_error="config.yaml:3:1: " + EVIL,
    listeners=(ListenerState("ROUTER", "0.0.0.0:11112"),),
    associations=(
        AssociationState("a1", "in", "ROUTER", "unknown", EVIL, "10.0.0.9", since=910.0),
    ),
)

STANDING = Standing(
    now=1000.0,
    destinations={state.name: state for state in STATUS.snapshot.destinations},
    pauses={"vna": Pause("vna", 990.0, "eva", "upgrade")},
)

META = InstanceMeta(
    received_at=900.0,
    association="a1",
    calling_ae="CT1",
    called_ae="ROUTER",
    source="10.0.0.9",
    remote="ct",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid=SOP_INSTANCE,
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    study_instance_uid=STUDY,
    modality="CT",
    disposition="route",
    routes=(RouteMeta("pacs", "everything"),),
)


FILES = (
    File("config.yaml", b"a: 1\n"),
    File("rules.d/\udcff.yaml", b"\xff"),
)
VERSION = Version(
    3,
    900.0,
    "refused",
    "",
    "d" * 64,
    "anna",
    problems=("config.yaml:1:1: no",),
    names=tuple(file.name for file in FILES),
)
RULES = RulesView(
    version="0123456789ab",
    number=7,
    since=900.0,
    rules=(
        RuleLine(EVIL, "Modality is " + EVIL, ("sends to " + EVIL, "ends the decision")),
        RuleLine("night", "", ("sends to pacs",), "disabled: waiting for the VPN"),
    ),
    destinations=("pacs",),
    lists=(ListState("trial", 17, failed=True),),
    reload_error="config.yaml:3:1: " + EVIL,
    trouble="the disk is full",
)


def ref(number):
    return Ref(number, generation=1, offset=0, data_offset=100, length=1000, crc=7)


def delivery(number):
    return Delivery(
        instance_id=number,
        destination="pacs",
        state=DeliveryState.DEAD,
        priority=0,
        due_at=None,
        attempts=2,
        updated_at=950.0,
        status=0xA900,
        reason="data set does not match",
        rule="everything",
        duplicate_of=None,
    )


class FakeGateway:
    """Implements both sources; ``calls`` has the actions in order, ``fail`` is raised instead."""

    def __init__(self):
        self.calls = []
        self.authors = []
        self.fail = None
        self.readiness_value = Readiness()
        self.reloaded = Reloaded(applied=True, changes=("rules",))
        self.file_pieces = [b"x" * 600, b"y" * 400]
        self.file_error = None
        self.file_closed = False
        self.exporter = Exporter(Counters(), self)

    async def snapshot(self):
        return STATUS.snapshot

    async def metrics(self):
        return await self.exporter.render()

    async def readiness(self):
        return self._answer(self.readiness_value)

    async def status(self):
        return self._answer(STATUS)

    async def queues(self):
        return self._answer(QUEUES)

    async def retry(self, which, origin):
        return self._act("retry", which, origin=origin)

    async def drop(self, which, reason, origin):
        return self._act("drop", which, reason, origin=origin)

    async def discard_held(self, which, reason, origin):
        return self._act("discard_held", which, reason, origin=origin)

    async def hold(self, which, origin):
        return self._act("hold", which, origin=origin)

    async def release(self, which, origin):
        return self._act("release", which, origin=origin)

    async def route_held(self, which, destinations, origin):
        return self._act("route_held", which, destinations, origin=origin)

    async def hasten(self, which, origin):
        return self._act("hasten", which, origin.author)

    async def redirect(self, which, target, reason, origin):
        self.calls.append(("redirect", which, target, reason, origin.author))
        return self._answer(Redone(3, 3000, 1))

    async def resend(self, which, destinations, origin):
        self.calls.append(("resend", which, destinations, origin.author))
        return self._answer(Redone(3, 3000, 1))

    async def reroute(self, which, origin):
        self.calls.append(("reroute", which, origin.author))
        return self._answer(Redone(3, 3000, 1))

    async def pause(self, destination, reason, origin):
        self.calls.append(("pause", destination, reason, origin.author))
        return self._answer(True)

    async def resume(self, destination, origin):
        self.calls.append(("resume", destination, origin.author))
        return self._answer(False)

    async def account_since(self, since):
        self.calls.append(("account_since", since))
        line = DestinationAccount.of_states(5, dict.fromkeys(DeliveryState, 0))
        return SinceAccount(3600.0, 7200.0, 6, 5, 1, 0, 0, 2, {"pacs": line}, {"instances": 1})

    async def standing(self):
        return STANDING

    async def queue(self, which, limit, after):
        self.calls.append(("queue", which, limit, after))
        start = after[1] if after else 0
        return [
            QueueItem(delivery(n), ref(n), META, (0, n))
            for n in range(start + 1, min(start + limit, 5) + 1)
        ]

    async def instances(self, which, limit, after):
        self.calls.append(("instances", which, limit, after))
        return [
            InstanceRow(ref(n), META, Disposition.ROUTED, None)
            for n in range(after + 1, min(after + limit, 5) + 1)
        ]

    async def instance(self, number):
        if number > 5:
            return None
        event = Event(1, 960.0, "root", "retry", "", 1)
        tried = Attempt("pacs", 950.0, 0.5, "out-1", DeliveryState.READY, 0xA700, "full")
        return InstanceRow(
            *(ref(number), META, Disposition.ROUTED, None, (delivery(number),), (event,)),
            attempts=(tried,),
        )

    async def open_file(self, number):
        if number > 5:
            return None
        return InstanceFile("instance 5\r\n.dcm", 1000, self._pieces())

    async def _pieces(self):
        try:
            for piece in self.file_pieces:
                yield piece
            if self.file_error:
                raise self.file_error
        finally:
            self.file_closed = True

    async def rules(self):
        return self._answer(RULES)

    async def reload(self, origin):
        self.calls.append(("reload", origin))
        return self.reloaded

    async def versions(self):
        return self._answer(VersionsView((VERSION, replace(VERSION, number=5)), ("4: no",), 5))

    async def version(self, text):
        self.calls.append(("version", text))
        return self._answer((VERSION, FILES))

    async def difference(self, old, new):
        self.calls.append(("difference", old, new))
        return self._answer(Difference(old, new, "+x\n", ("rule 'a' was added",)))

    async def rollback(self, text, origin):
        self.calls.append(("rollback", text, origin))
        return self._answer(self.reloaded)

    async def account(self):
        line = DestinationAccount(5, 1, 2, 0, 1, 0, 0)
        return Account(5, 5, 0, 0, 0, {"pacs": line}, {"pacs": line.difference})

    def _act(self, *call, origin=None):
        self.calls.append(call)
        if origin is not None:
            self.authors.append(origin.author)
        return self._answer(Changed(count=3, bytes=3000))

    def _answer(self, value):
        if self.fail is not None:
            raise self.fail
        return value
