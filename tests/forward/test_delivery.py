"""What becomes of instances: delivered, deferred or dead, each exactly once."""

import asyncio

import pytest

from router.forward.destination import Destination
from router.net.errors import AssociationBroken
from router.spool.index_types import DeliveryState
from tests.forward.fakes import (
    CT_PAIR,
    MR,
    MR_PAIR,
    Answer,
    House,
    timed_out,
    waiting,
)
from tests.forward.virtual import run

DELIVERED, DEAD, READY = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.READY


def test_everything_is_delivered_once() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=3)
        house.index.add("pacs", *(waiting(n, study=f"1.{n % 7}") for n in range(1, 1001)))
        house.start()
        await house.index.until_closed("pacs")
        assert sorted(house.peer.delivered) == sorted(f"1.2.3.{n}" for n in range(1, 1001))
        assert house.index.count("pacs", DELIVERED) == 1000
        assert house.counts.delivered[0][:2] == ("pacs", "delivered")
        assert len(house.counts.attempts) == 1000
        assert house.peer.most_open == 3
        assert len(house.index.settles) < 100
        assert house.index.leases < 20
        await house.stop()

    run(scenario())


def test_what_arrives_later_is_sent_when_it_is_announced() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.start()
        for number in range(1, 6):
            await asyncio.sleep(0.5)
            house.arrive("pacs", waiting(number))
            await house.index.until_closed("pacs")
        assert len(house.peer.delivered) == 5
        assert len(house.peer.connects) == 1, "the association lingers for the next"
        await asyncio.sleep(2.5)
        assert house.peer.associations[0].released
        await house.stop()

    run(scenario())


def test_nothing_to_do_wakes_nobody() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.start()
        await asyncio.sleep(0.1)
        leases = house.index.leases
        await asyncio.sleep(86400)
        assert house.index.leases == leases
        assert house.peer.connects == []
        await house.stop()

    run(scenario())


def test_a_warning_is_delivered_and_kept() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.answer = lambda uid: Answer(0xB006, "overlay removed")
        house.index.add("pacs", waiting(1))
        house.start()
        await house.index.until_closed("pacs")
        outcome = house.index.last("pacs", 1)
        assert (outcome.state, outcome.status) == (DELIVERED, 0xB006)
        assert "overlay removed" in outcome.reason
        assert house.counts.delivered[0][1] == "warning"
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("status", [0x0110, 0xA700, 0x0210, 0x4711])
def test_a_temporary_refusal_is_tried_again_later(status: int) -> None:
    async def scenario() -> None:
        house = House("pacs")
        answers = iter([Answer(status), Answer(status), Answer(0)])
        house.peer.answer = lambda uid: next(answers)
        house.index.add("pacs", waiting(1))
        house.start()
        await house.index.until_closed("pacs")
        states = [outcome.state for outcome in house.index.rows["pacs"][1].history]
        assert states == [READY, READY, DELIVERED]
        first = house.index.rows["pacs"][1].history[0]
        assert first.due_at is not None
        assert 1.5 <= first.due_at - first.at <= 2.0
        assert house.counts.failed == [("pacs", "deferred")] * 2
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("status", [0x0122, 0x0117, 0xA900, 0xC123, 0x0124, 0x0211])
def test_a_permanent_refusal_is_dead_at_once(status: int) -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.answer = lambda uid: Answer(status if uid.endswith(".1") else 0)
        house.index.add("pacs", waiting(1), waiting(2))
        house.start()
        await house.index.until_closed("pacs")
        outcome = house.index.last("pacs", 1)
        assert (outcome.state, outcome.status) == (DEAD, status)
        assert house.index.last("pacs", 2).state is DELIVERED
        assert house.peer.asked.count("1.2.3.1") == 1
        assert house.counts.availability == []
        await house.stop()

    run(scenario())


def test_too_many_attempts_are_dead() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.answer = lambda uid: Answer(0x0110, "database is read-only")
        house.index.add("pacs", waiting(1))
        house.start()
        await house.index.until_closed("pacs")
        assert len(house.peer.asked) == 5
        outcome = house.index.last("pacs", 1)
        assert outcome.state is DEAD
        assert "5 attempts" in outcome.reason
        assert "database is read-only" in outcome.reason
        await house.stop()

    run(scenario())


def test_after_a_time_out_the_association_is_not_used_again() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        failed: list[str] = []

        def answer(uid: str) -> Answer | Exception:
            if uid == "1.2.3.2" and not failed:
                failed.append(uid)
                return timed_out()
            return Answer(0)

        house.peer.answer = answer
        house.index.add("pacs", *(waiting(n) for n in (1, 2, 3)))
        house.start()
        await house.index.until_closed("pacs")
        by_uid = {one.uid: one.association for one in house.peer.stored}
        assert by_uid["1.2.3.1"].id == "out-1"
        assert {by_uid["1.2.3.3"].id, by_uid["1.2.3.2"].id} <= {"out-2", "out-3"}
        first = house.index.rows["pacs"][2].history[0]
        assert (first.state, first.attempted, first.status) == (READY, True, None)
        assert "silent for 60 s" in first.reason
        assert len(house.index.rows["pacs"][3].history) == 1
        await house.stop()

    run(scenario())


def test_a_peer_that_left_while_the_association_lay_idle_costs_no_attempt() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.start()
        house.arrive("pacs", waiting(1))
        await house.index.until_closed("pacs")
        lost = [AssociationBroken("connection reset")]
        house.peer.answer = lambda uid: lost.pop() if lost else Answer(0)
        house.arrive("pacs", waiting(2))
        await house.index.until_closed("pacs")
        assert [outcome.state for outcome in house.index.rows["pacs"][2].history] == [DELIVERED]
        assert len(house.peer.connects) == 2
        await house.stop()

    run(scenario())


def test_a_window_is_used_and_answers_come_in_any_order() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, asynchronous_operations=4)
        house.peer.window = 4
        house.peer.latency = lambda uid: 1.0 if uid == "1.2.3.1" else 0.01
        house.index.add("pacs", *(waiting(n) for n in range(1, 21)))
        house.start()
        await house.index.until_closed("pacs")
        assert house.peer.associations[0].most_outstanding == 4
        assert house.peer.delivered[-1] == "1.2.3.1"
        assert house.index.count("pacs", DELIVERED) == 20
        await house.stop()

    run(scenario())


def test_lanes_that_ran_dry_work_again_while_one_is_busy() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, asynchronous_operations=4)
        house.peer.window = 4
        house.peer.latency = lambda uid: 30.0 if uid == "1.2.3.1" else 0.01
        house.start()
        house.arrive("pacs", waiting(1))
        await asyncio.sleep(1)
        house.arrive("pacs", *(waiting(n) for n in range(2, 11)))
        await asyncio.sleep(1)
        assert len(house.peer.delivered) == 9
        assert house.peer.associations[0].most_outstanding == 4
        await house.index.until_closed("pacs")
        await house.stop()

    run(scenario())


def test_a_fall_with_several_outstanding_is_charged_to_those_and_counts_once() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, asynchronous_operations=4)
        house.peer.window = 4
        falls = [AssociationBroken("connection reset")]
        house.peer.answer = lambda uid: falls.pop() if falls else Answer(0)
        house.index.add("pacs", *(waiting(n) for n in range(1, 13)))
        house.start()
        await house.index.until_closed("pacs")
        charged = [r for r in house.index.rows["pacs"].values() if len(r.history) > 1]
        assert len(charged) == 4
        assert house.counts.availability == []
        await house.stop()

    run(scenario())


def test_what_was_not_begun_when_the_association_fell_is_charged_nothing() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, asynchronous_operations=4)
        house.peer.window = 4
        house.peer.one_at_a_time = True
        falls = [AssociationBroken("connection reset")]
        house.peer.answer = lambda uid: falls.pop() if falls else Answer(0)
        house.index.add("pacs", *(waiting(n) for n in range(1, 13)))
        house.start()
        await house.index.until_closed("pacs")
        charged = [r for r in house.index.rows["pacs"].values() if len(r.history) > 1]
        assert [row.item.ref.id for row in charged] == [1]
        await house.stop()

    run(scenario())


def test_what_is_damaged_in_the_spool_is_dead_at_once_and_others_go() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.spool.damaged = {2}
        house.spool.gone = {3}
        house.index.add("pacs", *(waiting(n) for n in range(1, 6)))
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.last("pacs", 2).state is DEAD
        assert "CRC-32" in house.index.last("pacs", 2).reason
        assert house.index.last("pacs", 3).state is DEAD
        assert "segment generation 1 is gone" in house.index.last("pacs", 3).reason
        assert house.index.count("pacs", DELIVERED) == 3
        assert "1.2.3.2" not in house.peer.delivered
        cut_off = next(a for a in house.peer.associations if a.aborted)
        assert cut_off.id == "out-1"
        assert house.counts.availability == []
        await house.stop()

    run(scenario())


def test_what_cannot_be_read_for_now_waits() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.spool.unreadable = {1}
        house.index.add("pacs", waiting(1))
        house.start()
        await house.index.until(lambda: bool(house.index.rows["pacs"][1].history))
        assert house.index.last("pacs", 1).state is READY
        house.spool.unreadable.clear()
        await house.index.until_closed("pacs")
        assert house.index.last("pacs", 1).state is DELIVERED
        await house.stop()

    run(scenario())


def test_a_fault_of_ours_neither_loses_the_instance_nor_stops_the_queue() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        faults: list[Exception] = [KeyError("surprise")]
        house.peer.answer = lambda uid: faults.pop() if faults else Answer(0)
        house.index.add("pacs", *(waiting(n) for n in range(1, 4)))
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 3
        assert "internal error: KeyError" in house.index.rows["pacs"][1].history[0].reason
        await house.stop()

    run(scenario())


def test_a_refused_pair_fails_all_of_its_instances_at_once() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.accepts = lambda pair: pair != MR_PAIR
        mixed = [waiting(n, sop_class=MR if n % 2 else CT_PAIR[0]) for n in range(1, 201)]
        house.index.add("pacs", *mixed)
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 100
        assert house.index.count("pacs", DEAD) == 100
        reason = house.index.last("pacs", 1).reason
        assert "no presentation context accepted: MR Image Storage" in reason
        assert "transcode" in reason
        assert sum(MR_PAIR in proposed for proposed in house.peer.proposed) == 1
        assert house.index.last("pacs", 199).at - house.index.last("pacs", 1).at < 1
        await house.stop()

    run(scenario())


def test_a_peer_that_accepts_nothing_is_up_and_all_is_dead() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.accepts = lambda pair: False
        house.index.add("pacs", *(waiting(n) for n in range(1, 11)))
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DEAD) == 10
        assert len(house.peer.connects) == 1
        assert house.forwarder.snapshot()["pacs"].up
        # Somebody mends it, and asks for another try.
        house.peer.accepts = lambda pair: True
        house.index.add("pacs", waiting(1))
        house.forwarder.refresh("pacs")
        await house.index.until_closed("pacs")
        assert house.index.last("pacs", 1).state is DELIVERED
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("associations", [1, 2, 4])
def test_more_pairs_than_an_association_holds_are_split(associations: int) -> None:
    async def scenario() -> None:
        house = House("pacs", associations=associations)
        items = [
            waiting(n, sop_class=f"1.2.840.{n % 100}", syntax=f"1.9.{n % 3}") for n in range(1, 601)
        ]
        house.index.add("pacs", *items)
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 600
        assert house.peer.most_open <= associations
        assert all(len(proposed) <= 128 for proposed in house.peer.proposed)
        assert len(house.peer.connects) <= 12
        await house.stop()

    run(scenario())


def test_a_pair_that_no_association_has_is_not_starved_by_an_endless_stream() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.start()
        house.arrive("pacs", *(waiting(n) for n in range(1, 50)))
        await house.index.until(lambda: len(house.peer.delivered) > 20)
        house.arrive("pacs", waiting(1000, sop_class=MR, study="9", priority=1))
        for batch in range(20):
            first = 2000 + 100 * batch
            house.arrive("pacs", *(waiting(n) for n in range(first, first + 100)))
            await asyncio.sleep(0.1)
        assert house.index.last("pacs", 1000).state is DELIVERED
        await house.index.until_closed("pacs")
        await house.stop()

    run(scenario())


def test_a_fault_in_finding_out_what_is_next_ended_a_destination(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: it stood outside of what outlives a fault of ours."""
    calls = 0
    due = Destination._due

    def faulty(destination: Destination) -> float | None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise KeyError("of ours")
        return due(destination)

    monkeypatch.setattr(Destination, "_due", faulty)

    async def scenario() -> None:
        house = House("pacs")
        house.start()
        await asyncio.sleep(0.1)
        assert house.forwarder.why("pacs") == "internal error: KeyError"
        assert calls <= 3, "it does not spin"
        house.arrive("pacs", *(waiting(n) for n in range(1, 4)))
        await house.index.until_closed("pacs")
        assert house.peer.delivered == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
        assert house.forwarder.why("pacs") == ""
        await house.stop()

    run(scenario())
