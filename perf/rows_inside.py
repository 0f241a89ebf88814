"""Rows that need no network: the queue at two fillings, and the decision of the rules.

Owns made-up index entries and made-up rules.  The queue is measured through the index itself,
at a steady filling: as much is enqueued as is leased and settled.
"""

import importlib
import importlib.util
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.processes import BenchError
from perf.report import Sample

_BATCH = 256
_FILL_BATCH = 2000
_DESTINATION = "pacs"
_STUDY_SIZE = 300
_NOW = 1_700_000_000.0
_RECEIVED = 1_795_286_000.0  # 21 November 2026, in the evening


def queue_missing() -> str:
    """Why the queue cannot be measured; "" when it can."""
    return _missing("router.spool.index", "Index")


def rules_missing() -> str:
    """Why the decision cannot be measured; "" when it can."""
    return _missing("rules.load", "load")


def _missing(module: str, name: str) -> str:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None or not hasattr(importlib.import_module(module), name):
        return f"{module}.{name} does not exist in this version"
    return ""


@dataclass(slots=True)
class QueueRates:
    """Instances per second of the three things that a queue does."""

    enqueue: float
    lease: float
    settle: float


class FilledIndex:
    """An index with ``level`` instances waiting for one destination."""

    def __init__(self, folder: Path, level: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        module = importlib.import_module("router.spool.index")
        self._records = importlib.import_module("router.spool.record")
        self._types = importlib.import_module("router.spool.index_types")
        self._index: Any = module.Index.open(folder / "index.sqlite")
        self._next = 1
        for _ in range(-(-level // _FILL_BATCH)):
            self._add(min(_FILL_BATCH, level + 1 - self._next))

    def close(self) -> None:
        self._index.close()

    def batch(self, spent: dict[str, float]) -> None:
        """Enqueue, lease and settle as many as a batch has; adds the seconds of each to `spent`."""
        entries, position = self._entries(_BATCH)
        with _timed(spent, "enqueue"):
            self._enqueue(entries, position)
        with _timed(spent, "lease"):
            leased = self._index.lease(_DESTINATION, _BATCH, _NOW, ())
        if len(leased) != _BATCH:
            raise BenchError(f"leased {len(leased)} instances where {_BATCH} were due")
        outcomes = [
            self._types.Outcome(
                instance_id=waiting.ref.id,
                destination=_DESTINATION,
                state=self._types.DeliveryState.DELIVERED,
                at=_NOW,
                status=0,
            )
            for waiting in leased
        ]
        with _timed(spent, "settle"):
            self._index.settle(outcomes)

    def purge(self, batches: int) -> None:
        """Remove what so many batches settled, as retention does: an index that grows from round
        to round would be another one each time."""
        self._index.purge(_NOW + 1, batches * _BATCH)

    def _add(self, count: int) -> None:
        self._enqueue(*self._entries(count))

    def _enqueue(self, entries: list[Any], position: object) -> None:
        self._index.add(entries, position, suppress_duplicates=True, same_bytes=lambda *_: False)

    def _entries(self, count: int) -> tuple[list[Any], object]:
        records = self._records
        entries = []
        for number in range(self._next, self._next + count):
            generation, slot = divmod(number, 500)
            ref = records.Ref(
                id=number,
                generation=generation + 1,
                offset=slot * 131_200,
                data_offset=slot * 131_200 + 500,
                length=131_072,
                crc=number,
            )
            study = number // _STUDY_SIZE
            meta = records.InstanceMeta(
                received_at=_NOW - 3600 + number * 0.001,
                association=f"a{study}",
                calling_ae="MR1",
                called_ae="ROUTER",
                source="10.0.0.7",
                remote="mr-1",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
                sop_instance_uid=f"2.25.1{number:030d}",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                study_instance_uid=f"2.25.2{study:030d}",
                series_instance_uid=f"2.25.3{study:030d}",
                modality="MR",
                disposition="route",
                rules_version="bench",
                routes=(records.RouteMeta(_DESTINATION, "everything"),),
            )
            entries.append((ref, meta))
        self._next += count
        last = entries[-1][0]
        return entries, records.Position(last.generation, last.offset + 131_200)


def rates_in_turns(indexes: Sequence[FilledIndex], batches: int) -> list[QueueRates]:
    """Of each index, which take turns batch by batch, so that what the machine does meanwhile
    meets all of them.

    Means over all batches, since a median would hide what only some of them pay for.
    """
    spent = [dict.fromkeys(("enqueue", "lease", "settle"), 0.0) for _ in indexes]
    for index in indexes:
        index.batch(dict.fromkeys(spent[0], 0.0))  # only fills caches
    for number in range(batches):
        turn = list(zip(indexes, spent, strict=True))
        for index, seconds in turn if number % 2 else reversed(turn):
            index.batch(seconds)
    for index in indexes:
        index.purge(batches + 1)
    total = batches * _BATCH
    return [QueueRates(**{name: total / t for name, t in seconds.items()}) for seconds in spent]


class _timed:  # noqa: N801 - used as a statement, like a function
    """Adds what the block took to an entry of a dictionary."""

    def __init__(self, spent: dict[str, float], name: str) -> None:
        self._spent, self._name = spent, name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spent[self._name] += time.perf_counter() - self._began


_KEYWORDS = {
    "Modality": (0x00080060, ("CT", "MR", "US", "CR", "DX", "MG", "XA", "NM", "PT", "SR")),
    "BodyPartExamined": (0x00180015, ("HEAD", "CHEST", "ABDOMEN", "PELVIS", "KNEE", "BRAIN")),
    "StationName": (0x00081010, tuple(f"STATION{n}" for n in range(40))),
    "InstitutionName": (0x00080080, tuple(f"Hospital {n}" for n in range(12))),
    "InstitutionalDepartmentName": (0x00081040, ("RAD", "CARD", "ONC", "ORTHO")),
    "Manufacturer": (0x00080070, ("ACME", "GLOBEX", "INITECH", "UMBRELLA")),
    "ManufacturerModelName": (0x00081090, tuple(f"Model {n}" for n in range(30))),
    "StudyDescription": (0x00081030, tuple(f"Protocol {n} follow-up" for n in range(60))),
    "SeriesDescription": (0x0008103E, tuple(f"Series {n} axial" for n in range(60))),
    "ProtocolName": (0x00181030, tuple(f"proto-{n}" for n in range(50))),
    "PatientSex": (0x00100040, ("M", "F", "O")),
    "PatientID": (0x00100020, tuple(f"P{n:06d}" for n in range(1000))),
    "AccessionNumber": (0x00080050, tuple(f"A{n:06d}" for n in range(1000))),
    "ReferringPhysicianName": (0x00080090, tuple(f"Doctor{n}^A" for n in range(80))),
    "RequestingService": (0x00321033, ("ER", "WARD1", "WARD2", "OUT")),
    "PatientPosition": (0x00185100, ("HFS", "FFS", "HFP")),
    "ImageType": (0x00080008, ("ORIGINAL", "DERIVED", "LOCALIZER")),
    "ContrastBolusAgent": (0x00180010, ("", "Iodine", "Gadolinium")),
    "ScanningSequence": (0x00180020, ("SE", "GR", "IR", "EP")),
    "KVP": (0x00180060, ("80", "100", "120", "140")),
    "SliceThickness": (0x00180050, ("0.6", "1", "3", "5")),
    "ConvolutionKernel": (0x00181210, tuple(f"B{n}0f" for n in range(9))),
    "DeviceSerialNumber": (0x00181000, tuple(f"SN{n}" for n in range(40))),
    "SoftwareVersions": (0x00181020, tuple(f"v{n}" for n in range(12))),
    "OperatorsName": (0x00081070, tuple(f"Op{n}" for n in range(30))),
    "StudyID": (0x00200010, tuple(str(n) for n in range(100))),
    "SeriesNumber": (0x00200011, tuple(str(n) for n in range(20))),
    "Laterality": (0x00200060, ("L", "R")),
    "ViewPosition": (0x00185101, ("AP", "PA", "LL")),
    "BurnedInAnnotation": (0x00280301, ("YES", "NO")),
}


def rules_text(count: int, seed: int = 1) -> str:
    """``count`` rules over thirty attributes as people write them: mostly a modality or an AE
    with one or two more conditions, some globs, some lists, a few negations."""
    draw = random.Random(seed)
    names = list(_KEYWORDS)
    lines = []
    for number in range(count):
        keyword = names[number % len(names)]
        value = draw.choice(_KEYWORDS[keyword][1]) or "*"
        conditions = {keyword: f'"{value}"'}
        if number % 3 == 0:
            conditions["calling_ae"] = f'"{draw.choice(("CT", "MR", "US"))}{number % 50}"'
        elif number % 3 == 1:
            conditions["Modality"] = f"[{', '.join(draw.sample(_KEYWORDS['Modality'][1], 2))}]"
        else:
            conditions["calling_ae"] = f'"{draw.choice(("CT", "MR", "US"))}{number % 10}*"'
        if number % 7 == 2:
            conditions["StudyDescription"] = f'"*{number % 60} follow*"'
        if number % 11 == 3:
            conditions["not"] = "{PatientSex: O}"
        inner = ", ".join(f"{name}: {text}" for name, text in conditions.items())
        lines.append(f"- {{name: rule {number}, when: {{{inner}}}, to: remote-{number % 20}}}")
    return "\n".join(lines)


def mixed_rules_text(count: int, seed: int = 1) -> str:
    """``count`` rules over the same attributes and the date of the study, with all that conditions
    can say: half as above, half with a number, a date, a name, a regex, a window, labels..."""
    draw = random.Random(seed)
    plain = rules_text(count, seed).splitlines()
    lines = []
    for number, line in enumerate(plain):
        if number % 4 < 2:
            lines.append(line)
            continue
        kind = _MIXED[(number // 4 * 2 + number % 2) % len(_MIXED)]
        conditions = kind.replace("##", str(draw.randrange(30))).replace("#", str(number % 9))
        first = f"calling_ae: {draw.choice(('CT', 'MR', 'US'))}{number % 10}*"
        if number % 3 == 0:
            first = f"Modality: [{', '.join(draw.sample(_KEYWORDS['Modality'][1], 2))}]"
        label = f", tag: kind-{number % 5}" if number % 10 == 1 else ""
        lines.append(
            f"- {{name: rule {number}, when: {{{first}, {conditions}}}, to: remote-{number % 20}"
            f"{label}}}"
        )
    return "\n".join(lines)


_MIXED = (
    'SliceThickness: "< #"',
    "KVP: 90..1#0",
    'SeriesNumber: [">= ##", 3]',
    'StudyDate: ">= today-##d"',
    "StudyDate: 2026-01-01..2026-11-1#",
    'ReferringPhysicianName: "doctor##^*"',
    "OperatorsName: OP##",
    'StudyDescription: "/protocol .*#/i"',
    "SeriesDescription: {contains: axial, starts: Series #}",
    'ManufacturerModelName: "!= Model ##"',
    "InstitutionName: {not: [Hospital #, Hospital ##]}",
    'StationName: {equals: "station##", ignore_case: true}',
    '"ImageType[1]": DERIVED',
    "ContrastBolusAgent: {empty: false}",
    "BurnedInAnnotation: {absent: true}",
    'ImageType: {count: "> #"}',
    "StudyID: {same_as: SeriesNumber}",
    'received: "18:00-07:00"',
    "any: [{PatientSex: O}, {BodyPartExamined: HEAD, KVP: 80}]",
    "PatientID: {in: trial}",
)


def decision_microseconds(rules: int, decisions: int, mixed: bool = False) -> Sample:
    """Mean time of one decision over many different instances; ``mixed`` uses every operator."""
    load: Callable[..., Any] = importlib.import_module("rules.load").load
    facts_type = importlib.import_module("rules.decision").Facts
    keywords = dict(_KEYWORDS)
    if mixed:
        keywords["StudyDate"] = (0x00080020, tuple(f"202611{day:02d}" for day in range(1, 29)))
    ruleset = load(mixed_rules_text(rules) if mixed else rules_text(rules))
    if mixed:
        ruleset = ruleset.with_lists({"trial": frozenset(f"P{n:06d}" for n in range(0, 1000, 7))})
    draw = random.Random(2)
    facts = [
        facts_type(
            calling_ae=f"{draw.choice(('CT', 'MR', 'US'))}{draw.randrange(60)}",
            called_ae="ROUTER",
            source_address=f"10.0.0.{draw.randrange(250)}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            attributes={tag: (draw.choice(values),) for tag, values in keywords.values()},
            received_at=_RECEIVED + number,
        )
        for number in range(500)
    ]
    routes = sum(len(ruleset.decide(each).routes) for each in facts)
    if not routes:
        raise BenchError("no made-up instance matches any made-up rule")
    began = time.perf_counter()
    for number in range(decisions):
        ruleset.decide(facts[number % 500])
    mean = (time.perf_counter() - began) / decisions
    tags = float(len(ruleset.tags))
    return Sample(mean * 1e6, extra={"routes_per_decision": routes / len(facts), "tags": tags})
