"""What a look at everything that the spool holds found.

Owns the words for it, and how many findings are kept.  Must not know how they are found.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["damaged", "missing", "orphaned", "stale"]
State = Literal["in use", "ended", "spare", "left alone", "unreadable", "missing"]

FINDINGS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    *damaged*: bytes are not those that were written.  *missing*: in the index, not in the spool.
    *orphaned*: in the spool, not in the index; a start of the gateway takes it up or, where it
    was never committed, clears it away.  *stale*: a file that is not part of this spool any more.
    """

    kind: Kind
    where: str
    what: str
    instance: int | None = None
    sop_instance_uid: str = ""


@dataclass(slots=True)
class SegmentReport:
    """One segment.  `records` and `bytes` (of data sets, those in files of their own included)
    are sound and in the index; `past` records are sound and belong to instances that the index
    has let go or elsewhere, so that their space will be used again."""

    name: str
    generation: int
    size: int
    state: State
    records: int = 0
    bytes: int = 0
    past: int = 0
    orphaned: int = 0
    damaged: int = 0
    missing: int = 0


@dataclass(slots=True)
class Report:
    """`findings` are the first 10,000; `counts` has how many of each kind there are.

    `index` is what is wrong with the index as a whole, "" for nothing.
    """

    segments: list[SegmentReport] = field(default_factory=list)
    large_files: int = 0
    large_bytes: int = 0
    index: str = ""
    findings: list[Finding] = field(default_factory=list)
    counts: dict[Kind, int] = field(
        default_factory=lambda: {"damaged": 0, "missing": 0, "orphaned": 0, "stale": 0}
    )

    @property
    def sound(self) -> bool:
        """Nothing is damaged or missing; what is orphaned or stale costs no instance."""
        return not (self.index or self.counts["damaged"] or self.counts["missing"])

    def add(self, finding: Finding) -> None:
        """Count it, and keep it if there are not too many."""
        self.counts[finding.kind] += 1
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(finding)
