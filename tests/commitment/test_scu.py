"""When a destination is asked for commitment, and what comes of it."""

import asyncio
from pathlib import Path

import pytest

from router.commitment.dataset import EXPLICIT, IMPLICIT, Item, encode_report
from router.net.errors import AssociationTimeout
from tests.commitment.asked import PACS, Scene, play, uid
from tests.forward.virtual import wall
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    READY,
    UNCOMMITTED,
    add,
    fate,
    meta,
    outcome,
    ref,
    state,
)

# -- mistakes of the peer first


@pytest.mark.parametrize(
    ("data", "event_type", "status"),
    [
        (b"", 1, 0x0120),
        (b"\x08\x00\x95\x11\xff\xff\xff\xff", 1, None),
        (b"\x08\x00\x95", 2, 0x0110),
        (None, 3, 0x0113),
        (None, None, 0x0113),
    ],
)
def test_a_report_that_is_none_changes_nothing(
    tmp_path: Path, data: bytes | None, event_type: int, status: int | None
) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(11)
        got = await scene.report("2.25.1", uid(1), data=data, event_type=event_type)
        assert got == status if status is not None else got != 0
        assert state(scene.index, 1, PACS) is UNCOMMITTED

    play(tmp_path, main)


def test_a_report_of_another_transaction_is_refused(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(11)
        assert await scene.report("2.25.999", uid(1)) == 0x0115
        assert state(scene.index, 1, PACS) is UNCOMMITTED

    play(tmp_path, main)


def test_a_report_that_the_index_cannot_take_is_to_come_again(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(11)
        scene.slow.broken = 1
        assert await scene.report("2.25.1", uid(1)) == 0x0110
        assert await scene.report("2.25.1", uid(1)) == 0
        assert state(scene.index, 1, PACS) is DELIVERED

    play(tmp_path, main)


def test_a_duplicate_transaction_uid_tells_nothing_of_instances(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(11)
        assert await scene.report("2.25.1", refused={uid(1): 0x0131}, event_type=2) == 0
        assert state(scene.index, 1, PACS) is UNCOMMITTED
        await scene.until(700)
        assert len(scene.archive.asked) == 2, "it is asked again under another UID"

    play(tmp_path, main)


# -- when it is asked


def test_the_first_waits_for_others_so_long(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(6)
        await scene.took(2, 3)
        await scene.until(9.9)
        assert scene.archive.calls == 0
        await scene.until(12)
        (action,) = scene.archive.actions
        assert [item.sop_instance_uid for item in action.items] == [uid(1), uid(2), uid(3)]
        (command,) = scene.archive.commands
        assert (command.action_type_id, command.requested_sop_instance_uid) == (
            *(1, "1.2.840.10008.1.20.1.1"),
        )

    play(tmp_path, main)


def test_a_full_batch_goes_at_once_and_the_rest_in_its_time(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(*range(1, 8))
        await scene.until(1)
        assert [len(action.items) for action in scene.archive.actions] == [3, 3]
        await scene.until(11)
        assert [len(action.items) for action in scene.archive.actions] == [3, 3, 1]
        assert len({action.transaction_uid for action in scene.archive.actions}) == 3

    play(tmp_path, main, batch=3)


def test_what_waited_before_the_start_is_asked_for(tmp_path: Path) -> None:
    async def before(scene: Scene) -> None:
        scene.archive.takes = 3600.0
        await scene.took(1)
        await scene.until(11)
        assert len(scene.archive.asked) == 1, "cut off in the middle of the request"

    async def after(scene: Scene) -> None:
        assert await scene.report("2.25.1", uid(1)) == 0, "the answer may still come"
        assert state(scene.index, 1, PACS) is DELIVERED

    play(tmp_path, before)
    play(tmp_path, after)


def test_no_answer_is_asked_for_again(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(1300)
        assert [round(scene.ago(at)) for at in scene.archive.times] == [10, 610, 1210]
        assert await scene.report("2.25.2", uid(1)) == 0, "to any of the three"
        await scene.until(5000)
        assert len(scene.archive.asked) == 3

    play(tmp_path, main)


def test_a_fall_in_the_middle_of_a_request_does_not_cost_the_time_for_an_answer(
    tmp_path: Path,
) -> None:
    async def before(scene: Scene) -> None:
        scene.archive.takes = 3600.0
        await scene.took(1)
        await scene.until(11)
        assert len(scene.archive.asked) == 1, "and the request is not answered"

    async def after(scene: Scene) -> None:
        await scene.until(60)
        assert len(scene.archive.asked) == 1
        await scene.until(500)
        assert len(scene.archive.asked) == 1, "now it was answered, and the report is waited for"

    play(tmp_path, before)
    play(tmp_path, after)


def test_what_is_never_answered_is_dead_in_the_end(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(86400 + 1200)
        found = fate(scene.index, 1, PACS)
        assert (found.state, found.reason) == (DEAD, "not committed within 1 d")
        assert scene.counts.became == {"dead": 1}
        asked = len(scene.archive.asked)
        await scene.until(2 * 86400)
        assert len(scene.archive.asked) == asked

    play(tmp_path, main, max_age=86400)


# -- failures to ask


def test_a_destination_that_is_down_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.up = False
        await scene.took(1, 2)
        await scene.until(3000)
        assert 8 <= scene.archive.calls <= 14
        status = scene.committers.snapshot()[PACS]
        assert status.trouble == "pacs could not be connected to: refused"
        assert status.next_at is not None
        assert set(scene.counts.asked) == {"failed"}
        scene.archive.up = True
        await scene.until(3700)
        assert [len(action.items) for action in scene.archive.actions] == [2]
        assert scene.committers.snapshot()[PACS].trouble == ""

    play(tmp_path, main)


def test_while_it_is_down_more_of_it_causes_no_more_calls(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.up = False
        for number in range(1, 101):
            await scene.took(number)
            await scene.until(number)
        assert scene.archive.calls <= 7

    play(tmp_path, main, batch=1)


@pytest.mark.parametrize("status", [0x0110, 0x0122, 0x0124, 0x0213])
def test_a_refused_request_is_made_again_later(tmp_path: Path, status: int) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.statuses = [status]
        await scene.took(1)
        await scene.until(11)
        trouble = scene.committers.snapshot()[PACS].trouble
        assert trouble.startswith(f"refused to be asked for commitment: {status:04X}")
        await scene.until(20)
        first, second = scene.archive.actions
        assert first.items == second.items
        assert first.transaction_uid != second.transaction_uid
        assert scene.counts.asked == ["refused", "asked"]

    play(tmp_path, main)


def test_a_peer_that_accepts_no_commitment_says_so(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.syntaxes = ()
        await scene.took(1)
        await scene.until(12)
        assert "accepts no storage commitment" in scene.committers.snapshot()[PACS].trouble
        assert all(one.closed for one in scene.archive.associations)

    play(tmp_path, main)


def test_explicit_where_implicit_is_refused(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.syntaxes = (EXPLICIT,)
        await scene.took(1)
        await scene.until(12)
        assert scene.archive.actions[0].items == (Item("1.2.840.10008.5.1.4.1.1.2", uid(1)),)
        assert await scene.report("2.25.1", uid(1), syntax=EXPLICIT) == 0

    play(tmp_path, main)


def test_an_association_that_falls_in_the_request_is_not_used_again(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.breaks = [AssociationTimeout("pacs was silent for 60 s")]
        await scene.took(1)
        await scene.until(30)
        assert len(scene.archive.associations) == 2
        assert scene.counts.asked == ["failed", "asked"]

    play(tmp_path, main)


def test_the_index_in_trouble_is_asked_again(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.slow.broken = 3
        await scene.took(1)
        await scene.until(60)
        assert len(scene.archive.asked) == 1

    play(tmp_path, main)


def test_a_reference_that_is_no_uid_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        add(scene.index, (ref(9), meta(9, PACS, uid="1.2.A.9")))
        scene.index.settle([outcome(9, PACS, UNCOMMITTED)])
        await scene.took(1)
        await scene.until(30)
        (action,) = scene.archive.actions
        assert [item.sop_instance_uid for item in action.items] == [uid(1)]
        found = fate(scene.index, 9, PACS)
        assert (found.state, "its UID is none" in found.reason) == (DELIVERED, True)

    play(tmp_path, main)


# -- the association


def test_it_is_kept_for_the_report_and_then_released(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(12)
        (kept,) = scene.archive.associations
        assert not kept.closed
        await scene.until(20)
        assert kept.released_at is not None
        assert 15 <= scene.ago(kept.released_at) <= 15.5

    play(tmp_path, main, linger=5)


def test_the_next_request_goes_over_the_one_that_is_kept(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        for number in range(1, 5):
            await scene.took(number)
            await scene.until(number)
        await scene.until(5.5)
        assert (len(scene.archive.actions), len(scene.archive.associations)) == (4, 1)
        await scene.until(20)
        assert scene.archive.associations[0].closed

    play(tmp_path, main, batch=1, linger=5)


def test_a_slow_answer_outlasts_the_time_it_is_kept(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.takes = 30.0
        await scene.took(1)
        await scene.until(60)
        assert scene.counts.asked == ["asked"]

    play(tmp_path, main, linger=1)


def test_one_that_the_peer_released_is_replaced(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(1)
        scene.archive.associations[0].abort()
        await scene.took(2)
        await scene.until(2)
        assert len(scene.archive.associations) == 2
        assert scene.counts.asked == ["asked", "asked"]

    play(tmp_path, main, batch=1)


# -- what is reported


def test_committed_and_refused_in_one_report(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1, 2, 3)
        await scene.until(11)
        refused = {uid(2): 0x0112, uid(3): 0x0122}
        assert await scene.report("2.25.1", uid(1), refused=refused, event_type=2) == 0
        states = [state(scene.index, n, PACS) for n in (1, 2, 3)]
        assert states == [DELIVERED, READY, DEAD]
        assert fate(scene.index, 1, PACS).reason == "committed, transaction 2.25.1"
        assert "0122H" in fate(scene.index, 3, PACS).reason
        assert scene.resent == [(PACS, 2)], "what repeats the dead one may go as well"
        assert scene.counts.became == {"committed": 1, "resent": 1, "dead": 1}

    play(tmp_path, main)


def test_refused_again_and_again_is_dead(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        for turn in range(1, 4):
            await scene.until(turn * 20)
            await scene.report(f"2.25.{turn}", refused={uid(1): 0x0112}, event_type=2)
            if turn < 3:
                assert state(scene.index, 1, PACS) is READY
                await scene.took(1)
        assert state(scene.index, 1, PACS) is DEAD

    play(tmp_path, main, resend=2)


def test_a_report_that_leaves_some_out_has_them_asked_for_again(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1, 2)
        await scene.until(11)
        assert await scene.report("2.25.1", uid(1)) == 0
        await scene.until(700)
        assert [len(action.items) for action in scene.archive.actions] == [2, 1]

    play(tmp_path, main)


def test_a_report_twice_is_taken_twice(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(11)
        assert [await scene.report("2.25.1", uid(1)) for _ in range(2)] == [0, 0]
        assert scene.counts.became == {"committed": 1}

    play(tmp_path, main)


def test_a_large_report_is_read_beside_the_loop(tmp_path: Path) -> None:
    async def whole() -> None:
        scene = Scene(tmp_path / "index.db")
        await scene.took(1)
        scene.slow.broken = 0
        transaction = scene.index.commitments.ask(PACS, "2.25.77", 10, 0.0, 1e12)
        assert transaction is not None
        items = [Item("1.2.840.10008.5.1.4.1.1.2", uid(n)) for n in range(1, 2000)]
        data = encode_report("2.25.77", items, [], IMPLICIT)
        assert await scene.report("2.25.77", data=data) == 0
        assert state(scene.index, 1, PACS) is DELIVERED
        await scene.stop()

    asyncio.run(whole())


# -- by C-FIND


def test_listed_is_delivered_and_the_rest_looked_for_again(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.listed = {uid(1), "1.2.99"}
        await scene.took(1, 2)
        await scene.until(12)
        assert [state(scene.index, n, PACS) for n in (1, 2)] == [DELIVERED, UNCOMMITTED]
        assert "C-FIND" in fate(scene.index, 1, PACS).reason
        scene.archive.listed = {uid(2)}
        await scene.until(30)
        assert state(scene.index, 2, PACS) is DELIVERED
        assert scene.archive.calls == 0, "no N-ACTION"

    play(tmp_path, main, confirm="find")


def test_of_two_with_one_uid_the_one_is_delivered_that_is_listed_in_its_series(
    tmp_path: Path,
) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.listed = {"1.2.3.9"}
        twin = meta(2, PACS, uid=uid(1), study="1.2.9", series="1.2.3.9")
        add(scene.index, (ref(1), meta(1, PACS)), (ref(2), twin))
        scene.index.settle([outcome(n, PACS, UNCOMMITTED, at=wall()) for n in (1, 2)])
        scene.committers.notify(PACS)
        await scene.until(12)
        assert [state(scene.index, n, PACS) for n in (1, 2)] == [UNCOMMITTED, DELIVERED]
        await scene.until(700)
        assert [state(scene.index, n, PACS) for n in (1, 2)] == [DEAD, DELIVERED]

    play(tmp_path, main, confirm="find", resend=0)


def test_never_listed_is_sent_again(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.listed = set()
        await scene.took(1)
        await scene.until(600)
        assert state(scene.index, 1, PACS) is UNCOMMITTED
        assert 6 <= len(scene.archive.looks) <= 10
        await scene.until(620)
        assert state(scene.index, 1, PACS) is READY
        assert scene.resent == [(PACS, 1)]
        await scene.took(1)
        await scene.until(1300)
        assert state(scene.index, 1, PACS) is DEAD

    play(tmp_path, main, confirm="find", resend=1)


def test_an_archive_that_answers_no_queries_is_told(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(12)
        assert "no Study Root" in scene.committers.snapshot()[PACS].trouble
        assert state(scene.index, 1, PACS) is UNCOMMITTED

    play(tmp_path, main, confirm="find")
