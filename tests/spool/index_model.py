"""What a dictionary knows of an instance in the index, for the tests that compare the two."""

from router.spool.index import DeliveryState, Disposition
from router.spool.index_types import KEEPING_STATES
from router.spool.plan import Plan
from router.spool.record import InstanceMeta, Ref
from tests.spool.index_samples import DELIVERED, DUPLICATE, HELD, READY, UNCOMMITTED

DESTINATIONS = ("pacs", "vna", "tele")
ROUTES = (("pacs",), ("vna",), ("tele",), ("pacs",), ("pacs", "vna"), ("vna", "tele"), ())
STUDIES = ("1.1", "1.2", "")
SUPPRESSING = (READY, HELD, DELIVERED, UNCOMMITTED)
PLANS = (
    Plan(),
    Plan(),
    Plan(after="study-complete"),
    Plan(after="series-complete", schedule="night"),
    Plan(schedule="night"),
    Plan(mode="failover", members=DESTINATIONS),
    Plan(mode="failover", members=("vna", "pacs"), after="study-complete"),
    Plan(mode="balance", members=("tele", "pacs", "vna"), after="study-complete", schedule="night"),
    Plan(mode="first_available", members=("pacs", "tele"), schedule="night"),
)

GateKey = tuple[str, str, str, Plan]
"""Destination, kind, key, plan."""


class Modelled:
    """One instance of the model; what it has by destination."""

    def __init__(self, what: tuple[Ref, InstanceMeta]) -> None:
        self.ref, self.meta = what
        self.uid = self.meta.sop_instance_uid
        self.study = self.meta.study_instance_uid
        word = self.meta.disposition
        self.disposition = (
            Disposition.ROUTED
            if word == "route"
            else Disposition.HELD
            if word == "hold"
            else Disposition.DISCARDED
        )
        self.fates: dict[str, DeliveryState] = {}
        self.due: dict[str, float] = {}
        self.repeats: dict[str, int] = {}
        self.plans: dict[str, Plan] = {}
        self.gates: dict[str, GateKey] = {}
        self.asked: dict[str, str] = {}
        """UID of the transaction that it is in, by destination."""

    def complete_gate(self, name: str) -> GateKey | None:
        """That of its study or series."""
        plan = self.plans.get(name, Plan())
        if plan.after == "at-once" or not self.study:
            return None
        if plan.after == "study-complete":
            return (name, "study", self.study, plan)
        return (name, "series", self.meta.series_instance_uid, plan)

    def schedule_gate(self, name: str) -> GateKey | None:
        plan = self.plans.get(name, Plan())
        return (name, "schedule", plan.schedule, plan) if plan.schedule else None

    def better(self, destination: str, up: set[str]) -> str | None:
        """Where its delivery would rather be."""
        plan = self.plans.get(destination, Plan())
        if plan.mode == "one" or (plan.mode == "first_available" and destination in up):
            return None
        for name in plan.members:
            if name == destination and name in up:
                return None
            if name in up and name not in self.fates:
                return name
        return None

    def move(self, origin: str, target: str) -> None:
        for what in (self.fates, self.repeats, self.plans):
            if origin in what:
                what[target] = what.pop(origin)  # type: ignore[attr-defined]
        self.due.pop(origin, None)


def settled(model: dict[int, Modelled], one: Modelled) -> bool:
    """Nothing of it waits, nor anything that it would stand in for."""
    if one.disposition in (Disposition.HELD, Disposition.QUARANTINED):
        return False
    if any(fate in KEEPING_STATES for fate in one.fates.values()):
        return False
    return not any(
        fate is DUPLICATE
        and one.repeats[name] in model
        and model[one.repeats[name]].fates[name] in KEEPING_STATES
        for name, fate in one.fates.items()
    )


DESTINATION_NAMES = "SELECT json_group_array(json_array(id, name)) FROM destination"
WHERE = """
SELECT json_group_array(json_array(instance_id, destination_id, state, gate_id, duplicate_of))
FROM delivery
"""
GATED_BYTES = """
SELECT json_group_array(json_array(d.name, t.bytes))
FROM tally AS t CROSS JOIN destination AS d ON d.id = t.key
WHERE t.what = 15 AND t.bytes <> 0
"""
