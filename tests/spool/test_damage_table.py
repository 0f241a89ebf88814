"""The table of what may befall a spool at rest, with indexes of every age beside it.

For each: it is found and told, what it struck is never served as good bytes, and everything else
that was acknowledged is still there, after a start, after upkeep, and after another start.
"""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from router.spool import recovery, sqlite
from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index import Index, move_aside
from router.spool.index_types import Disposition, Filter
from router.spool.layout import BLOCK, RECORD_HEADER_SIZE
from router.spool.record import Ref
from router.spool.segment import Segment
from router.spool.segments import SegmentTable
from router.spool.verify import verify
from router.spool.verify_report import Finding, Report
from router.spool.writer import large_path
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Rig, meta, payload, segment_of

LARGE = 300 * KIB
ALL = ("newest", "yesterday", "none", "corrupt")
NEWEST = ("newest",)
SINCE = ("yesterday", "none", "corrupt")
NEW = ("none", "corrupt")


@dataclass
class Site:
    """A spool at rest with what was acknowledged: two segments, the second since yesterday."""

    directory: Path
    acked: dict[int, bytes]
    refs: dict[str, Ref]
    first: Path
    second: Path
    metas: dict[str, bytes]
    stale: bytes = b""
    """The second segment's file in its first life."""

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    def large(self, name: str) -> Path:
        return large_path(self.spool / "large", self.refs[name].id)

    def ids(self, *names: str) -> set[int]:
        return {self.refs[name].id for name in names}


@dataclass(frozen=True)
class Case:
    """``strike`` does the harm and says whom it struck; ``told`` is part of what is said of it.

    ``starts``: the indexes with which a start says it, where the others leave the records unread;
    who reads is told then, and `verify` tells.  ``indexes``: those with which it can be known that
    there was something.  ``sound``: `verify` takes no harm from it.  ``lost``: without the index
    the struck ones leave no row.  ``mended``: all of it is known though it was struck.
    """

    strike: Callable[[Site], set[int]]
    told: str
    starts: tuple[str, ...] = NEW
    indexes: tuple[str, ...] = ALL
    sound: bool = False
    lost: bool = False
    mended: bool = False
    keeps: tuple[str, ...] = field(default=())
    """Files that are not ours, and that are left."""


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def torn_data(site: Site) -> set[int]:
    last = site.refs["last"]
    overwrite(site.second, last.data_offset + last.length // 2, bytes(last.length))
    return site.ids("last")


def torn_header(site: Site) -> set[int]:
    last = site.refs["last"]
    overwrite(site.second, last.offset, bytes(last.length))
    return site.ids("last")


def flipped(name: str, part: str) -> Callable[[Site], set[int]]:
    def strike(site: Site) -> set[int]:
        ref = site.refs[name]
        at = {
            "header": ref.offset + 33,
            "description": ref.offset + RECORD_HEADER_SIZE + 20,
            "data": ref.data_offset + ref.length // 3,
        }[part]
        flip(site.first if ref.generation == site.refs["a"].generation else site.second, at)
        return site.ids(name)

    return strike


def flipped_segment_header(site: Site) -> set[int]:
    flip(site.first, 17)
    return set()


def missing_segment(site: Site) -> set[int]:
    site.first.unlink()
    return site.ids("a", "b", "c", "large1", "large2")


def stale_generation(site: Site) -> set[int]:
    site.second.write_bytes(site.stale)
    return site.ids("d", "e", "large3", "last")


def cut_within(site: Site) -> set[int]:
    with site.first.open("r+b") as file:
        file.truncate(site.refs["b"].data_offset + 100)
    return site.ids("b", "c", "large2")


def cut_to(size: int) -> Callable[[Site], set[int]]:
    def strike(site: Site) -> set[int]:
        with site.first.open("r+b") as file:
            file.truncate(size)
        return site.ids("a", "b", "c", "large1", "large2")

    return strike


def foreign(site: Site) -> set[int]:
    segments, large = site.spool / "segments", site.spool / "large"
    (segments / "notes.seg").write_text("hands off")
    (segments / "notes.txt").write_text("hands off")
    (segments / "00000077.seg").write_bytes(payload(5, 9000))
    (large / "notes.dat").write_text("hands off")
    (large / "abc.dat").write_text("hands off")
    (large / f"{'f' * 20}.dat").write_text("hands off")
    return set()


FOREIGN = ("notes.seg", "notes.txt", "00000077.seg", "notes.dat", "abc.dat", f"{'f' * 20}.dat")


def twin(name: str, *, older: bool) -> Callable[[Site], set[int]]:
    def strike(site: Site) -> set[int]:
        copy = site.first.with_name(name)
        shutil.copyfile(site.first, copy)
        if older:  # of before its last records
            overwrite(copy, site.refs["b"].offset, bytes(128 * KIB))
        return set()

    return strike


def large_file(how: str) -> Callable[[Site], set[int]]:
    def strike(site: Site) -> set[int]:
        path = site.large("large1")
        if how == "missing":
            path.unlink()
        elif how == "flipped":
            flip(path, 12_345)
        else:
            with path.open("r+b") as file:
                file.truncate(LARGE + (1 if how == "long" else -1))
        return set() if how == "long" else site.ids("large1")

    return strike


def nothing(site: Site) -> set[int]:
    return set()


CASES = {
    "nothing": Case(nothing, "", sound=True),
    "a torn tail": Case(torn_data, "CRC-32", SINCE),
    "a tail without its beginning": Case(
        torn_header, "no sound record", (), indexes=NEWEST, lost=True
    ),
    "a flipped bit in a header": Case(flipped("b", "header"), "no sound", mended=True),
    "in the header of a large one": Case(flipped("large1", "header"), "no sound", mended=True),
    "in the header of the last": Case(flipped("last", "header"), "no sound", SINCE, mended=True),
    "in a description": Case(flipped("b", "description"), "damaged description"),
    "in that of a large one": Case(flipped("large1", "description"), "damaged description"),
    "in the data": Case(flipped("b", "data"), "CRC-32"),
    "in the data of the last": Case(flipped("last", "data"), "CRC-32", SINCE),
    "in the header of a segment": Case(flipped_segment_header, "damaged header", ALL),
    "a missing segment": Case(missing_segment, "missing", ALL, lost=True),
    "a segment of a stale generation": Case(stale_generation, "earlier time", ALL, lost=True),
    "a segment cut within a record": Case(cut_within, "cut to", ALL, lost=True),
    "a segment cut to its header": Case(cut_to(BLOCK), "cut to", ALL, lost=True),
    "a segment cut to nothing": Case(cut_to(0), "cut to", ALL, lost=True),
    "files of somebody else": Case(foreign, "not a file of this spool", ALL, keeps=FOREIGN),
    "an older copy before it": Case(twin("00000000.seg", older=True), "is in generation", ALL),
    "an older copy behind it": Case(twin("00000099.seg", older=True), "is in generation", ALL),
    "an equal copy": Case(twin("00000000.seg", older=False), "is in generation", ALL, sound=True),
    "a missing large file": Case(large_file("missing"), "is missing"),
    "a short large file": Case(large_file("short"), "ends after"),
    "a long large file": Case(large_file("long"), "", sound=True),
    "a flipped bit in a large file": Case(large_file("flipped"), "CRC-32"),
}


@pytest.fixture
def site(open_rig: OpenRig) -> Site:
    rig = open_rig()
    # A life of the second segment that is over.
    rig.commit(payload(90, 5000), meta(90, disposition="discard"))
    rig.feed()
    rig.spool.segments.seal()
    (second,) = (rig.spool.directory / "segments").glob("*.seg")
    stale = second.read_bytes()
    refs: dict[str, Ref] = {}
    metas: dict[str, bytes] = {}

    def commit(number: int, name: str, size: int) -> None:
        refs[name] = rig.commit(payload(number, size), meta(number, "pacs")).kept
        metas[name] = meta(number, "pacs").to_bytes()

    rig.spool.segments.refill(1)
    for number, (name, size) in enumerate(
        [("a", 700), ("large1", LARGE), ("b", 60_000), ("c", 50_000), ("large2", LARGE + 7)]
    ):
        commit(number, name, size)
    first = segment_of(rig, refs["a"])
    assert first != second
    rig.feed()
    yesterday = rig.directory / "yesterday.sqlite"
    source = sqlite.connect(rig.directory / "index.sqlite")
    source.execute("VACUUM INTO ?", (str(yesterday),))
    source.close()
    rig.spool.segments.seal()
    assert (rig.step().recycled, rig.report.moved) == (1, 0)
    for number, (name, size) in enumerate(
        [("d", 5000), ("large3", LARGE), ("e", 60_000), ("last", 20_000)], start=20
    ):
        commit(number, name, size)
    assert segment_of(rig, refs["d"]) == second
    rig.feed()
    acked = {number: data for number, (data, what) in rig.acked.items() if what.routes}
    rig.close()
    return Site(rig.directory, acked, refs, first, second, metas, stale)


def with_index(site: Site, which: str) -> None:
    index = site.directory / "index.sqlite"
    if which == "newest":
        return
    for path in site.directory.glob("index.sqlite*"):
        if which != "corrupt":
            path.unlink()
    if which == "yesterday":
        shutil.copyfile(site.directory / "yesterday.sqlite", index)
    elif which == "corrupt":
        data = bytearray(index.read_bytes())
        data[100:20_000] = payload(1, 19_900)
        index.write_bytes(data)


def start(open_rig: OpenRig, site: Site) -> Rig:
    """As the gateway does: a corrupt index is moved aside."""
    try:
        Index.open(site.directory / "index.sqlite").close()
    except IndexDamaged:
        move_aside(site.directory / "index.sqlite", "damaged-1")
    rig = open_rig(site.directory)
    rig.keeper.sweep()
    return rig


def said(rig: Rig) -> str:
    held = rig.index.instances(Filter(disposition=Disposition.QUARANTINED), 100)
    return "\n".join([*rig.spool.notes, *rig.report.damage, *(row.meta.reason for row in held)])


def check(rig: Rig, site: Site, struck: set[int], case: Case, which: str) -> None:
    """Nobody was lost but those that were struck; those are not served but with their bytes."""
    for number, data in site.acked.items():
        row = rig.index.instance(number)
        if number not in struck:
            assert row is not None, f"instance {number} is lost"
            assert rig.read(row.ref) == data
            assert {r.destination for r in row.meta.routes} == {"pacs"}
            continue
        if row is None:
            assert case.lost, f"instance {number} has no row"
            assert which != "newest"
            continue
        with contextlib.suppress(SpoolError):
            assert rig.read(row.ref) == data, "other bytes were served"
            # Where it was to go is not known any more, or it goes there.
            known = which in ("newest", "yesterday") or case.mended
            assert row.meta.disposition == "hold" or known
    for row in rig.index.instances(Filter(), 1000):
        if row.ref.id not in site.acked:  # of an earlier life, or of no known origin
            assert row.disposition in (Disposition.QUARANTINED, Disposition.DISCARDED)
    assert rig.index.account(audit=True).differences == {}


@pytest.mark.parametrize(
    ("name", "which"), [(name, which) for name, case in CASES.items() for which in case.indexes]
)
def test_table(open_rig: OpenRig, site: Site, name: str, which: str) -> None:
    case = CASES[name]
    with_index(site, which)
    struck = case.strike(site)
    rig = start(open_rig, site)
    if which in case.starts:
        assert case.told in said(rig)
    check(rig, site, struck, case, which)
    for _ in range(3):
        rig.step()
    rig.acked.clear()
    new = rig.commit(payload(50, 1000), meta(50, "pacs")).kept
    assert new.id not in site.acked
    rig.feed()
    check_new = {**site.acked, new.id: payload(50, 1000)}
    site.acked = check_new
    check(rig, site, struck, case, which)
    rig.close()
    again = start(open_rig, site)
    check(again, site, struck, case, which)
    names = {path.name for path in site.spool.rglob("*")}
    assert names.issuperset(case.keeps)


@pytest.mark.parametrize("name", CASES)
def test_verify_finds_it(site: Site, name: str) -> None:
    case = CASES[name]
    struck = case.strike(site)
    before = {p: p.read_bytes() for p in site.directory.rglob("*") if p.is_file()}
    report = verify(site.spool, site.directory / "index.sqlite")
    harmless = case.sound or name.startswith("an older copy")
    assert report.sound is harmless, report
    found = {f.instance for f in report.findings if f.kind in ("damaged", "missing")} - {None}
    assert found == struck
    text = "\n".join(f"{f.where}: {f.what}" for f in report.findings)
    assert case.told in text
    sound = {ref.id for ref in site.refs.values()} - struck
    assert sum(part.records for part in report.segments) == len(sound)
    assert sum(part.bytes for part in report.segments) == sum(len(site.acked[n]) for n in sound)
    assert {p: p.read_bytes() for p in site.directory.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("which", ["yesterday", "none", "corrupt"])
def test_verify_tells_of_the_index(site: Site, which: str) -> None:
    with_index(site, which)
    report = verify(site.spool, site.directory / "index.sqlite")
    assert (report.counts["damaged"], report.counts["missing"]) == (0, 0)
    orphaned = {f.instance for f in report.findings if f.kind == "orphaned"}
    if which == "yesterday":
        assert report.sound
        assert orphaned == site.ids("d", "e", "large3", "last")
    else:
        assert not report.sound
        assert report.index
        assert orphaned >= {ref.id for ref in site.refs.values()}


# -- every byte ------------------------------------------------------------------------------------


def places(site: Site, name: str) -> list[int]:
    """Every byte of the header and the description, and some of the data."""
    ref = site.refs[name]
    path = site.first
    description = path.read_bytes().index(site.metas[name], ref.offset)
    head = [
        *range(ref.offset, ref.offset + RECORD_HEADER_SIZE),
        *range(description, description + len(site.metas[name])),
    ]
    step = max(1, ref.length // 60)
    return [*head, *range(ref.data_offset, ref.data_offset + ref.length, step)]


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_bit_flipped_in_any_byte_of_a_record_is_found_by_a_scan(site: Site, name: str) -> None:
    ref = site.refs[name]
    path = site.first
    segment = Segment(path, 1, path.stat().st_size, recovery.generation_of(path))
    large = site.spool / "large"
    others = site.ids("a", "b", "c", "large1", "large2") - {ref.id}
    for at in places(site, name):
        flip(path, at)
        found = list(recovery.scan(segment, 0, large))
        flip(path, at)
        sound = {r.ref.id for r in found if isinstance(r, recovery.Recovered) and not r.damage}
        assert sound == others, at
        assert len(found) == len(others) + 1, at


def test_a_bit_flipped_in_any_byte_of_a_record_is_found_by_verify(site: Site) -> None:
    index = site.directory / "index.sqlite"
    struck = site.ids("a")
    for at in places(site, "a")[::5]:
        flip(site.first, at)
        report = verify(site.spool, index)
        flip(site.first, at)
        assert {f.instance for f in report.findings} == struck, at
    assert verify(site.spool, index).findings == []


def test_a_bit_flipped_in_any_byte_of_a_segment_header_costs_no_record(site: Site) -> None:
    generation = site.refs["a"].generation
    for at in range(36):
        flip(site.first, at)
        table = SegmentTable(site.spool / "segments", 256 * KIB, 0)
        notes = table.load(recovery.generation_of)
        flip(site.first, at)
        assert generation in {segment.generation for segment in table.sealed()}, at
        assert "damaged header" in notes[0], at


def test_a_report_keeps_a_bounded_number_of_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.spool.verify_report.FINDINGS_KEPT", 3)
    report = Report()
    for number in range(5):
        report.add(Finding("damaged", f"segment {number}", "x"))
    assert len(report.findings) == 3
    assert report.counts["damaged"] == 5
