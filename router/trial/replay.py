"""Other rules over what was really received.

Owns the run and its sums.  What held is the decision in each instance's record; the candidate is
told what the record and the data set say.  Memory is bounded by the number of destinations,
labels and kinds of change, not by that of instances.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from router.spool.look import Lookout, Pieces, Seen
from router.spool.record import InstanceMeta, Ref
from router.trial.anew import decided
from router.trial.compare import DISCARDED, HELD, Difference, compare
from router.trial.facts import Attributes, Identify, first, scan
from rules.attributes import Key
from rules.ruleset import RuleSet

EXAMPLES = 5
_KINDS = 50
"""Kinds of change that are told apart at one destination, and of dispositions in all; further
ones are counted together."""
_OTHER = "other changes"
_OTHER_REASONS = "other reasons"
_PATIENT_NAME = 0x00100010
_PATIENT_ID = 0x00100020


@dataclass(frozen=True, slots=True)
class Example:
    """One instance, without anything that names a patient unless that was asked for."""

    id: int
    received_at: float
    modality: str
    calling_ae: str
    called_ae: str
    detail: str = ""
    patient_id: str | None = None
    patient_name: str | None = None


@dataclass(slots=True)
class Kind:
    """How many there were, and the first few of them: the latest received."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example, detail: str = "") -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(replace(example, detail=detail) if detail else example)


@dataclass(slots=True)
class Destination:
    """Deliveries under the rules of then (``before``) and under the candidate (``after``);
    ``changed`` by what is other about them."""

    before: int = 0
    after: int = 0
    added: Kind = field(default_factory=Kind)
    dropped: Kind = field(default_factory=Kind)
    changed: dict[str, Kind] = field(default_factory=dict)


Move: TypeAlias = tuple[str, str, str]
"""Disposition before, disposition after, and why, of what would be held or discarded."""


@dataclass(slots=True)
class Report:
    """What would have been other.

    ``replayed`` were decided anew, ``same`` of them as before.  ``quarantined`` could not be
    parsed, then or now, and are held under any rules.  ``purged`` are gone from the spool, or were
    broken off while they arrived, which their numbers do not tell: so many at most.
    ``moves`` are changes of disposition.
    """

    replayed: int = 0
    same: int = 0
    quarantined: int = 0
    purged: int = 0
    damaged: Kind = field(default_factory=Kind)
    oldest: float | None = None
    newest: float | None = None
    dispositions: dict[str, list[int]] = field(default_factory=dict)
    moves: dict[Move, Kind] = field(default_factory=dict)
    destinations: dict[str, Destination] = field(default_factory=dict)
    labels_added: dict[str, Kind] = field(default_factory=dict)
    labels_dropped: dict[str, Kind] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Tried:
    example: Example
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    difference: Difference | None = None
    """None: quarantined."""


class Replay:
    """One run of `rules` over what `lookout` finds.

    ``identify`` names the remote of a caller, as the candidate's configuration has it.
    """

    def __init__(
        self,
        lookout: Lookout,
        rules: RuleSet,
        identify: Identify,
        *,
        show_patient: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._lookout = lookout
        self._rules = rules
        self._identify = identify
        self._show_patient = show_patient
        self._progress = progress
        patient: frozenset[Key] = frozenset({_PATIENT_NAME, _PATIENT_ID})
        self._wanted = rules.tags | patient if show_patient else rules.tags

    def run(self, since: float, until: float, limit: int | None) -> Report:
        """Over what was received in [`since`, `until`), the latest `limit` of it.

        Raises SpoolError when spool or index cannot be read at all.
        """
        report = Report()
        for done, seen in enumerate(self._lookout.newest(since, until, limit, self._try), 1):
            _enter(report, seen)
            self._progress(done)
        if limit is None:
            report.purged += self._lookout.missing
        return report

    def _try(self, ref: Ref, meta: InstanceMeta, pieces: Pieces) -> _Tried:
        if meta.quarantined:
            return _Tried(_example(ref, meta, {}, show_patient=False))
        scanned = scan(meta.transfer_syntax_uid, self._wanted, pieces)
        example = _example(ref, meta, scanned.attributes, show_patient=self._show_patient)
        after = decided(self._rules, self._identify, meta, scanned)
        return _Tried(
            example,
            tuple(route.destination for route in meta.routes),
            tuple(route.destination for route in after.routes),
            compare(meta, after),
        )


def _example(
    ref: Ref, meta: InstanceMeta, attributes: Attributes, *, show_patient: bool
) -> Example:
    return Example(
        ref.id,
        meta.received_at,
        meta.modality,
        meta.calling_ae,
        meta.called_ae,
        patient_id=first(attributes, _PATIENT_ID) if show_patient else None,
        patient_name=first(attributes, _PATIENT_NAME) if show_patient else None,
    )


def _enter(report: Report, seen: Seen[_Tried]) -> None:
    tried = seen.result
    if tried is None:
        if seen.damage:
            report.damaged.add(Example(seen.id, 0.0, "", "", ""), seen.damage)
        else:
            report.purged += 1
        return
    moment = tried.example.received_at
    report.oldest = moment if report.oldest is None else min(moment, report.oldest)
    report.newest = moment if report.newest is None else max(moment, report.newest)
    difference = tried.difference
    if difference is None:
        report.quarantined += 1
        return
    report.replayed += 1
    for name in tried.before:
        report.destinations.setdefault(name, Destination()).before += 1
    for name in tried.after:
        report.destinations.setdefault(name, Destination()).after += 1
    report.dispositions.setdefault(difference.before, [0, 0])[0] += 1
    report.dispositions.setdefault(difference.after, [0, 0])[1] += 1
    if difference.any:
        _enter_difference(report, tried.example, difference)
    else:
        report.same += 1


def _enter_difference(report: Report, example: Example, difference: Difference) -> None:
    before, after = difference.before, difference.after
    if before != after:
        why = difference.reason if after in (HELD, DISCARDED) else ""
        move = (before, after, why)
        if move not in report.moves and len(report.moves) >= _KINDS:
            move = (before, after, _OTHER_REASONS)
        told = why if move[2] == _OTHER_REASONS else ""
        report.moves.setdefault(move, Kind()).add(example, told)
    for name in difference.added:
        report.destinations[name].added.add(example)
    for name in difference.dropped:
        report.destinations[name].dropped.add(example)
    for name, words in difference.changed:
        kinds = report.destinations[name].changed
        key = words if words in kinds or len(kinds) < _KINDS else _OTHER
        kinds.setdefault(key, Kind()).add(example, words if key == _OTHER else "")
    for label in difference.labels_added:
        report.labels_added.setdefault(label, Kind()).add(example)
    for label in difference.labels_dropped:
        report.labels_dropped.setdefault(label, Kind()).add(example)
