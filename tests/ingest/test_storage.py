"""The Storage SCP: statuses, what is kept, and when it is acknowledged."""

import errno
import itertools
from pathlib import Path
from typing import Any

import pytest

from router.dicom.uids import storage_sop_classes
from router.ingest.settings import StorageSettings
from router.spool import system
from router.ul import PresentationContextRQ
from rules import load
from rules.decision import Decision, Facts
from tests.dicom.build import explicit, implicit
from tests.ingest.support import (
    CT,
    EXPLICIT,
    FixedRules,
    data_set,
    reception,
    recovered,
    store_rq,
    stored,
)
from tests.net.support import IMPLICIT, VERIFICATION, Runner

CSV = Path(__file__).parents[2] / "router" / "dicom" / "data" / "storage-classes.csv"
PRIVATE = "1.2.826.0.1.3680043.9.9999.1"


def contexts(*pairs: tuple[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        "presentation_contexts": tuple(
            PresentationContextRQ(2 * n + 1, abstract, transfers)
            for n, (abstract, transfers) in enumerate(pairs)
        )
    }


# -- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [0, 100, 65_000, 262_000, 300_000, 3_000_000])
def test_an_instance_is_kept_as_sent_with_its_decision(
    run: Runner, tmp_path: Path, pixels: int
) -> None:
    async def scenario() -> None:
        async with reception(tmp_path, rules=FixedRules(tags=(0x00080018,))) as subject:
            wire = await subject.associated()
            data = data_set(pixels=pixels)
            assert await stored(wire, data, 9) == (0, "")
            await wire.release()
            assert subject.bytes_of(0) == data
            [meta] = subject.metas
            assert meta.sop_class_uid == CT
            assert meta.sop_instance_uid == "1.2.3"
            assert meta.transfer_syntax_uid == EXPLICIT
            assert (meta.study_instance_uid, meta.series_instance_uid) == ("1.2.3.4", "1.2.3.4.5")
            assert meta.modality == "CT"
            assert (meta.calling_ae, meta.called_ae) == ("CT1", "ROUTER")
            assert meta.source == "127.0.0.1"
            assert meta.disposition == "route"
            assert [(r.destination, r.rule, r.priority) for r in meta.routes] == [
                ("pacs", "all", 1)
            ]
            [facts] = subject.rules.asked
            assert facts.attributes[0x00080018] == ("1.2.3",)
            assert subject.counted.received == [("ROUTER", "", len(data))]
            assert subject.counted.stored == [0]

    run(scenario)


def test_one_uid_with_different_bytes_is_kept_twice(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            first, second = data_set(pixels=100), data_set(pixels=102)
            for data in (first, second, first):
                assert await stored(wire, data) == (0, "")
            await wire.release()
            assert [subject.bytes_of(n) for n in range(3)] == [first, second, first]
            ids = [ref.id for ref, _, _ in subject.feed.entries]
            assert ids == sorted(set(ids))
            ends = [end for _, _, end in subject.feed.entries]
            assert all(a < b for a, b in itertools.pairwise(ends))

    run(scenario)


def test_every_storage_class_of_the_list_is_taken(run: Runner, tmp_path: Path) -> None:
    uids = [line.split(",")[0] for line in CSV.read_text().splitlines()[1:]]
    assert len(uids) == 151

    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            for some in (uids[:76], uids[76:]):
                wire = await subject.wire()
                answer = await wire.associate(**contexts(*((uid, (EXPLICIT,)) for uid in some)))
                assert {c.result for c in answer.presentation_contexts} == {0}
                for n, uid in enumerate(some):
                    await wire.send(
                        store_rq(data_set(sop_class=uid), n + 1, f"1.2.{n}", uid, 2 * n + 1)
                    )
                for _ in some:
                    assert (await wire.answer()).status == 0
                await wire.release()
            assert [meta.sop_class_uid for meta in subject.metas] == uids

    run(scenario)


def test_every_class_of_the_standard_is_taken_and_no_other_of_its_classes(
    run: Runner, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            takes = subject.service.takes
            assert all(takes(uid) for uid in storage_sop_classes())
            assert takes(PRIVATE)
            assert takes("1.2.840.10008.5.1.4.1.1.999.1"), "newer than this version"
            for uid in (
                VERIFICATION,
                "1.2.840.10008.1.20.1",
                "1.2.840.10008.5.1.4.1.2.1.1",
                "1.2.840.10008.5.1.4.31",
                "1.2.840.10008.1.3.10",
                EXPLICIT,
            ):
                assert not takes(uid), uid

    run(scenario)


def test_unknown_classes_can_be_refused(run: Runner, tmp_path: Path) -> None:
    settings = StorageSettings(unknown_sop_classes="refuse")

    async def scenario() -> None:
        async with reception(tmp_path, settings) as subject:
            wire = await subject.wire()
            answer = await wire.associate(**contexts((PRIVATE, (EXPLICIT,)), (CT, (EXPLICIT,))))
            assert [c.result for c in answer.presentation_contexts] == [3, 0]
            status, comment = await stored(wire, data_set(), sop_class=PRIVATE)
            assert status == 0x0122
            assert PRIVATE in comment
            await wire.release()

    run(scenario)


def test_classes_can_be_restricted_and_a_reload_counts_for_what_stands(
    run: Runner, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            assert (await stored(wire, data_set()))[0] == 0
            only = StorageSettings(sop_classes=("MRImageStorage",))
            subject.service.apply(only, FixedRules())
            assert (await stored(wire, data_set()))[0] == 0x0122
            assert (await stored(wire, data_set(), sop_class=PRIVATE))[0] == 0x0122
            late = await subject.wire()
            answer = await late.associate()
            assert [c.result for c in answer.presentation_contexts] == [0, 3]
            await late.release()
            await wire.release()

    run(scenario)


@pytest.mark.parametrize(
    ("preference", "chosen"),
    [
        ({}, "1.2.840.10008.1.2.4.70"),
        ({"transfer_syntaxes": ["explicit-vr-le"]}, EXPLICIT),
        ({"transfer_syntaxes": ["jpeg-ls-lossless", "implicit-vr-le"]}, IMPLICIT),
        ({"transfer_syntaxes": ["rle"]}, "1.2.840.10008.1.2.4.70"),
        ({"transfer_syntaxes": "proposed"}, "1.2.840.10008.1.2.4.70"),
    ],
)
def test_the_transfer_syntax_is_chosen_by_preference_or_as_proposed(
    run: Runner, tmp_path: Path, preference: dict[str, Any], chosen: str
) -> None:
    async def scenario() -> None:
        async with reception(tmp_path, local=preference) as subject:
            wire = await subject.wire()
            proposed = ("1.2.840.10008.1.2.4.70", IMPLICIT, EXPLICIT)
            answer = await wire.associate(**contexts((CT, proposed)))
            assert answer.presentation_contexts[0].transfer_syntax == chosen
            await wire.release()

    run(scenario)


@pytest.mark.parametrize(
    "syntax", ["1.2.840.113619.5.2", "1.3.46.670589.33.1.4.1", "1.2.840.10008.1.2.4.203"]
)
def test_any_transfer_syntax_is_kept_as_sent(run: Runner, tmp_path: Path, syntax: str) -> None:
    def element(tag: int, value: bytes) -> bytes:
        return implicit(tag, value + b"\0" * (len(value) % 2))

    # GE's private syntax has implicit VRs in its head; unknown ones count as explicit.
    in_implicit = element(0x00080016, CT.encode()) + element(0x00080018, b"1.2.3")
    data = in_implicit if syntax == "1.2.840.113619.5.2" else data_set()

    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.wire()
            await wire.associate(**contexts((VERIFICATION, (IMPLICIT,)), (CT, (syntax,))))
            assert (await stored(wire, data))[0] == 0
            await wire.release()
            [meta] = subject.metas
            assert meta.transfer_syntax_uid == syntax
            assert not meta.quarantined, meta.reason
            assert subject.bytes_of(0) == data

    run(scenario)


# -- statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "data", "request_", "status", "words"),
    [
        ({}, data_set(), {"uid": ""}, 0x0117, "0 characters"),
        ({}, data_set(), {"uid": "1." + "2" * 63}, 0x0117, "65 characters"),
        ({}, data_set(), {"sop_class": VERIFICATION}, 0x0122, VERIFICATION),
        ({}, None, {}, 0xC000, "without a data set"),
        (
            {"mismatched_class": "refuse"},
            data_set(sop_class="1.2.840.10008.5.1.4.1.1.4"),
            {},
            0xA900,
            "1.2.840.10008.5.1.4.1.1.4",
        ),
        ({"unparsable": "refuse"}, b"not a data set", {}, 0xC000, ""),
        ({"unparsable": "refuse"}, b"", {}, 0xC000, "empty"),
    ],
)
def test_refusals(
    run: Runner,
    tmp_path: Path,
    settings: dict[str, Any],
    data: bytes | None,
    request_: dict[str, Any],
    status: int,
    words: str,
) -> None:
    """Status and Error Comment to the peer, a count, a line in the log, and nothing kept."""

    async def scenario() -> None:
        async with reception(tmp_path, StorageSettings(**settings)) as subject:
            wire = await subject.associated()
            await wire.send(store_rq(data, 1, **request_))
            answer = await wire.answer()
            assert answer.status == status
            assert 0 < len(answer.error_comment) <= 64
            assert words in answer.error_comment
            assert answer.affected_sop_instance_uid == request_.get("uid", "1.2.3")
            assert subject.counted.stored == [status]
            assert subject.counted.received == []
            assert subject.feed.entries == []
            assert await stored(wire, data_set()) == (0, "")
            await wire.release()

    run(scenario)
    [line] = run.said("instance refused")
    assert line["log_level"] == "warning"
    assert line["status"] == f"{status:04X}"
    assert words in line["why"]
    assert line["association"]
    assert "sop_instance_uid" in line
    assert len(recovered(tmp_path)) == 1


@pytest.mark.parametrize("where", ["spool", "feed"])
def test_while_there_is_no_room_the_answer_is_a700(run: Runner, tmp_path: Path, where: str) -> None:
    why = "the disk has 1 MB left, spool.low_disk is 1 GB; " + "free some space " * 5

    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            if where == "spool":
                subject.spool.refuse(why)
            else:
                subject.feed.refusal = why
            status, comment = await stored(wire, data_set(pixels=500_000))
            assert status == 0xA700
            assert why.startswith(comment)
            assert len(comment) <= 64
            subject.spool.refuse("")
            subject.feed.refusal = ""
            assert await stored(wire, data_set()) == (0, "")
            await wire.release()
            assert subject.counted.stored == [0xA700, 0]

    run(scenario)


@pytest.mark.parametrize("pixels", [100, 600_000])
@pytest.mark.parametrize(
    ("number", "status"), [(errno.EIO, 0x0110), (errno.ENOSPC, 0xA700), (errno.EDQUOT, 0xA700)]
)
# Small ones become durable by the write itself, large ones by a sync.
@pytest.mark.parametrize("calls", [("write_all",), ("write_blocks", "sync_data")], ids="/".join)
def test_a_disk_that_fails(
    run: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: tuple[str, ...],
    number: int,
    status: int,
    pixels: int,
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, "the disk is on fire")

    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            assert await stored(wire, data_set(pixels=pixels)) == (0, "")
            with monkeypatch.context() as patch:
                for call in calls:
                    patch.setattr(system, call, fail)
                got, comment = await stored(wire, data_set(pixels=pixels), 2)
            assert got == status
            assert 0 < len(comment) <= 64
            assert len(subject.feed.entries) == 1
            assert await stored(wire, data_set(pixels=pixels), 3) == (0, "")
            await wire.release()
            assert subject.counted.stored == [0, status, 0]
            assert [subject.bytes_of(n) for n in (0, 1)] == [data_set(pixels=pixels)] * 2

    run(scenario)
    assert run.said("instance refused", "the disk is on fire")
    assert len(list((tmp_path / "large").iterdir())) == (2 if pixels > 2**18 else 0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"not a data set", ""),
        (bytes(128) + b"DICM" + data_set(), "Part 10"),
        (data_set()[:30], ""),
        (data_set()[:-40], ""),
        (implicit(0x00080060, b"CT"), ""),
    ],
)
def test_what_cannot_be_parsed_is_kept_and_held(
    run: Runner, tmp_path: Path, data: bytes, why: str
) -> None:
    async def scenario() -> None:
        # Beyond every element, so that the scanner must see the end of the data set.
        async with reception(tmp_path, rules=FixedRules(tags=(0x7FE10010,))) as subject:
            wire = await subject.associated()
            assert await stored(wire, data) == (0, "")
            await wire.release()
            [meta] = subject.metas
            assert meta.quarantined
            assert meta.disposition == "hold"
            assert meta.routes == ()
            assert meta.reason.startswith("cannot be parsed: ")
            assert why in meta.reason
            assert meta.sop_instance_uid == "1.2.3"
            assert subject.bytes_of(0) == data
            assert subject.rules.asked == []

    run(scenario)
    [line] = run.said("instance quarantined")
    assert line["association"]
    assert line["instance"]


def test_a_mismatched_class_is_kept_as_announced(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            data = data_set(sop_class="1.2.840.10008.5.1.4.1.1.4")
            assert await stored(wire, data) == (0, "")
            await wire.release()
            [meta] = subject.metas
            assert (meta.sop_class_uid, meta.disposition) == (CT, "route")

    run(scenario)


def test_attributes_that_are_too_long_for_the_index_are_cut(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            assert (await stored(wire, data_set(modality="\x01" * 60_000)))[0] == 0
            await wire.release()
            assert len(subject.metas[0].modality) <= 256

    run(scenario)


# -- rules ---------------------------------------------------------------------------------------


def test_rules_that_fail_cost_a_look_not_an_instance(run: Runner, tmp_path: Path) -> None:
    class Failing(FixedRules):
        def decide(self, facts: Facts) -> Decision:
            raise KeyError("no such thing")

    async def scenario() -> None:
        async with reception(tmp_path, rules=Failing()) as subject:
            wire = await subject.associated()
            assert await stored(wire, data_set()) == (0, "")
            await wire.release()
            [meta] = subject.metas
            assert (meta.disposition, meta.quarantined) == ("hold", False)
            assert "the rules failed" in meta.reason
            assert subject.bytes_of(0) == data_set()

    run(scenario, tracebacks=1)


@pytest.mark.parametrize(
    ("element", "sent"),
    [
        (explicit(0x00104000, "UT", b"secret" * 20_000), False),
        (explicit(0x00104000, "LO", b"x\\" * 1000 + b"secret"), False),
        (explicit(0x00104000, "LT", b"harmless"), True),
    ],
)
def test_what_is_too_large_for_the_rules_is_held_and_not_sent(
    run: Runner, tmp_path: Path, element: bytes, sent: bool
) -> None:
    rules = load("[{when: {not: {PatientComments: '*secret*'}}, to: pacs}]")
    whole = data_set()
    at = whole.index(explicit(0x0020000D, "UI", b"1.2.3.4\0"))
    data = whole[:at] + element + whole[at:]

    async def scenario() -> None:
        async with reception(tmp_path, rules=rules) as subject:
            wire = await subject.associated()
            assert await stored(wire, data) == (0, "")
            await wire.release()
            [meta] = subject.metas
            assert [route.destination for route in meta.routes] == ["pacs"] * sent
            # It could be parsed: other rules may yet send it.
            assert not meta.quarantined
            assert meta.rules_version == rules.version
            why = "PatientComments (0010,4000), which rules look at, is too large to be compared"
            assert (meta.disposition, meta.reason) == (("route", "") if sent else ("hold", why))
            assert subject.bytes_of(0) == data

    run(scenario)


@pytest.mark.parametrize("disposition", ["hold", "discard"])
def test_what_is_held_or_discarded_is_acked_and_says_so(
    run: Runner, tmp_path: Path, disposition: Any
) -> None:
    rules = FixedRules(Decision(disposition, (), "no rule matched", "v2"))

    async def scenario() -> None:
        async with reception(tmp_path, rules=rules) as subject:
            wire = await subject.associated()
            assert await stored(wire, data_set()) == (0, "")
            await wire.release()
            [meta] = subject.metas
            assert (meta.disposition, meta.reason) == (disposition, "no rule matched")
            assert (meta.rules_version, meta.routes) == ("v2", ())

    run(scenario)
