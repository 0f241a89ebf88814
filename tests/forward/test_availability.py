"""Destinations that are down, that are gone, and an index in trouble."""

import asyncio
from itertools import pairwise

import pytest

from router.forward import NOT_CONFIGURED
from router.forward.trial import PROBED
from router.net.errors import AssociationBroken, AssociationRejected
from router.spool.errors import SpoolError, SpoolFull
from router.spool.index_types import DeliveryState
from tests.forward.fakes import Answer, House, timed_out, waiting
from tests.forward.virtual import CreepingLoop, VirtualLoop, run, wall

DELIVERED, DEAD, READY = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.READY


def test_a_dead_destination_is_probed_not_hammered_and_drains_on_recovery() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4)
        house.peer.down()
        house.index.add("pacs", *(waiting(n, study=f"1.{n % 9}") for n in range(1, 501)))
        house.start()
        await asyncio.sleep(3600)
        times = house.peer.connects
        gaps = [after - before for before, after in pairwise(times)]
        assert 12 <= len(times) <= 25
        assert house.peer.most_connecting == 1
        assert all(later > 1.3 * sooner for sooner, later in pairwise(gaps[:7]))
        assert all(gap <= 301 for gap in gaps)
        status = house.forwarder.snapshot()["pacs"]
        assert not status.up
        assert "connection refused" in status.reason
        assert status.next_probe is not None
        assert house.forwarder.why("pacs") == status.reason
        assert house.counts.availability == [("pacs", False)]
        assert house.index.leases <= len(times) + 1

        house.peer.connect_error = None
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 500
        assert all(len(row.history) == 1 for row in house.index.rows["pacs"].values())
        assert house.counts.availability == [("pacs", False), ("pacs", True)]
        status = house.forwarder.snapshot()["pacs"]
        assert (status.up, status.reason, status.next_probe) == (True, "", None)
        await house.stop()

    run(scenario())


def test_for_a_probe_no_more_is_read_than_it_needs() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.down()
        house.index.add("pacs", *(waiting(n) for n in range(1, 1001)))
        house.start()
        await asyncio.sleep(10)
        before, probes = house.index.leased, len(house.peer.connects)
        await asyncio.sleep(3600)
        probes = len(house.peer.connects) - probes
        assert probes > 5
        assert house.index.leased - before <= PROBED * probes

        house.peer.connect_error = None
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 1000
        await house.stop()

    run(scenario())


def test_a_dead_destination_costs_no_wake_ups_between_probes() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.down()
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(3600)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert loop.selector.jumps < 12 * len(house.peer.connects)
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("early", range(40))
def test_a_probe_that_falls_due_while_we_look_at_the_clock_is_made(early: int) -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.down()
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(0.5)
        probe = house.forwarder.snapshot()["pacs"].next_probe
        assert probe is not None
        house.peer.connect_error = None
        # The turn that this causes begins before the probe is due and ends after: the last
        # thing to happen, so that nothing but the timer could mend it.
        await asyncio.sleep(probe - wall() - early * CreepingLoop.CREEP / 2)
        house.arrive("pacs", waiting(2))
        await house.index.until_closed("pacs")  # raises Stalled when no timer was set
        assert house.index.count("pacs", DELIVERED) == 2
        await house.stop()

    run(scenario(), CreepingLoop)


def test_arrivals_for_a_dead_destination_do_not_hasten_the_probe() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.down()
        house.start()
        for number in range(1, 3001):
            house.arrive("pacs", waiting(number))
            await asyncio.sleep(0.1)
        assert len(house.peer.connects) <= 10
        assert house.index.leases <= 11
        house.forwarder.refresh("pacs")
        probes = len(house.peer.connects)
        await asyncio.sleep(0.1)
        assert len(house.peer.connects) == probes + 1, "an operator's request is a probe"
        await house.stop()

    run(scenario())


def test_a_rejection_that_needs_a_hand_waits_with_its_reason() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.connect_error = AssociationRejected("PACS", 1, 1, 3)
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(600)
        assert house.index.count("pacs", READY) == 1
        assert "rejected" in house.forwarder.why("pacs")
        house.peer.connect_error = None
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 1
        await house.stop()

    run(scenario())


def test_one_dead_destination_does_not_delay_another() -> None:
    async def seconds(dead: bool) -> float:
        house = House("live", "dead")
        if dead:
            house.peers["dead"].down()
            house.peers["dead"].connect_latency = 10.0
        items = [waiting(n) for n in range(1, 501)]
        house.index.add("live", *items)
        house.index.add("dead", *items)
        house.start()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await house.index.until_closed("live")
        took = loop.time() - begin
        await house.stop()
        return took

    assert run(seconds(True)) <= 1.02 * run(seconds(False))


def test_a_peer_that_breaks_off_every_message_is_down_after_a_few() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.answer = lambda uid: AssociationBroken("connection reset")
        house.index.add("pacs", *(waiting(n) for n in range(1, 201)))
        house.start()
        await asyncio.sleep(60)
        assert len(house.peer.asked) <= 12
        assert not house.forwarder.snapshot()["pacs"].up
        touched = [r for r in house.index.rows["pacs"].values() if r.history]
        assert len(touched) <= 12
        house.peer.answer = lambda uid: Answer(0)
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 200
        await house.stop()

    run(scenario())


def test_a_peer_that_accepts_and_leaves_at_once_is_down_and_charges_nothing() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.leaves_at_once = True
        house.index.add("pacs", *(waiting(n) for n in range(1, 21)))
        house.start()
        await asyncio.sleep(600)
        assert len(house.peer.connects) <= 15
        assert not house.forwarder.snapshot()["pacs"].up
        assert all(not row.history for row in house.index.rows["pacs"].values())
        house.peer.leaves_at_once = False
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 20
        await house.stop()

    run(scenario())


def test_a_destination_short_of_resources_is_left_alone() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.answer = lambda uid: Answer(0xA700, "disk full")
        house.index.add("pacs", *(waiting(n) for n in range(1, 201)))
        house.start()
        await asyncio.sleep(60)
        assert len(house.peer.asked) <= 12
        assert "disk full" in house.forwarder.why("pacs")
        house.peer.answer = lambda uid: Answer(0)
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 200
        await house.stop()

    run(scenario())


def test_while_a_probe_is_out_nobody_else_sends() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.latency = lambda uid: 5.0 if uid in ("1.2.3.1", "1.2.3.5") else 0.001
        house.peer.answer = lambda uid: Answer(0 if uid == "1.2.3.1" else 0xA700)
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 201)))
        house.start()
        await house.index.until(lambda: house.index.count("pacs", DELIVERED) == 1)
        await asyncio.sleep(1)
        assert house.peer.asked == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4", "1.2.3.5"]
        house.peer.answer = lambda uid: Answer(0)
        await house.index.until_closed("pacs")
        await house.stop()

    run(scenario())


def test_a_probe_that_is_overdue_waits_for_an_association_without_spinning() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, asynchronous_operations=2)
        house.peer.window = 2
        house.peer.latency = lambda uid: 100.0 if uid == "1.2.3.1" else 0.001
        house.peer.answer = lambda uid: Answer(0 if uid == "1.2.3.1" else 0xA700)
        house.index.add("pacs", *(waiting(n) for n in range(1, 11)))
        house.start()
        await asyncio.sleep(50)
        assert len(house.peer.asked) == 4
        house.peer.answer = lambda uid: Answer(0)
        await house.index.until_closed("pacs")
        await house.stop()

    run(scenario())


def test_what_is_urgent_goes_first_when_a_destination_comes_back() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.peer.down()
        house.index.add("pacs", *(waiting(n) for n in range(1, 601)))
        house.start()
        await asyncio.sleep(100)
        house.arrive("pacs", waiting(1000, priority=1))
        house.peer.connect_error = None
        await house.index.until_closed("pacs")
        assert house.peer.delivered[0] == "1.2.3.1000"
        await house.stop()

    run(scenario())


def test_a_weekend_of_a_full_disk_kills_nothing() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.answer = lambda uid: Answer(0xA700, "disk full")
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(2.5 * 86400)
        assert house.index.count("pacs", READY) == 1
        assert len(house.peer.asked) > 100
        house.peer.answer = lambda uid: Answer(0)
        await house.index.until_closed("pacs")
        assert house.index.last("pacs", 1).state is DELIVERED
        await house.stop()

    run(scenario())


def test_a_probe_that_is_poison_does_not_keep_the_destination_down() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        poison = {f"1.2.3.{n}" for n in range(1, 7)}
        house.peer.answer = lambda uid: timed_out() if uid in poison else Answer(0)
        house.index.add("pacs", *(waiting(n) for n in range(1, 101)))
        house.start()
        await house.index.until(lambda: len(house.peer.delivered) == 94)
        assert house.index.count("pacs", READY) == 6
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DEAD) == 6
        await house.stop()

    run(scenario())


def test_a_poisonous_instance_does_not_keep_the_others_from_going() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.peer.answer = lambda uid: timed_out() if uid == "1.2.3.1" else Answer(0)
        house.index.add("pacs", *(waiting(n) for n in range(1, 101)))
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 99
        assert house.index.last("pacs", 1).state is DEAD
        await house.stop()

    run(scenario())


def test_while_the_index_fails_nothing_is_lost_and_little_is_sent() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.latency = lambda uid: 0.05
        house.index.add("pacs", *(waiting(n) for n in range(1, 1001)))
        house.start()
        await asyncio.sleep(2)
        house.index.broken = SpoolFull("no space left on device")
        sent = len(house.peer.asked)
        await asyncio.sleep(600)
        assert len(house.peer.asked) - sent <= 10
        assert "no space left" in house.forwarder.why("pacs")
        assert house.forwarder.snapshot()["pacs"].unsettled > 0
        house.index.broken = None
        await house.index.until_closed("pacs")
        assert sorted(house.peer.delivered) == sorted(f"1.2.3.{n}" for n in range(1, 1001))
        assert house.forwarder.why("pacs") == ""
        await house.stop()

    run(scenario())


def test_an_index_that_fails_at_the_start_is_asked_again() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.index.broken = SpoolError("input/output error")
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(120)
        house.index.broken = KeyError("a fault of ours")
        await asyncio.sleep(120)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert loop.selector.jumps < 100
        house.index.broken = None
        await house.index.until_closed("pacs")
        await house.stop()

    run(scenario())


def test_trouble_that_leaves_nothing_to_settle_passes_too() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.start()
        house.arrive("pacs", waiting(1))
        await house.index.until_closed("pacs")
        house.index.broken = SpoolError("input/output error")
        house.forwarder.notify("pacs", 1)
        await asyncio.sleep(60)
        assert house.forwarder.why("pacs") != ""
        house.index.broken = None
        await asyncio.sleep(60)
        assert house.forwarder.why("pacs") == ""
        await house.stop()

    run(scenario())


def test_a_destination_that_is_gone_keeps_its_queue_and_says_so() -> None:
    async def scenario() -> None:
        house = House("pacs", "other", associations=1)
        pacs = house.peers["pacs"]
        pacs.latency = lambda uid: 1.0
        house.index.add("pacs", *(waiting(n) for n in range(1, 101)))
        house.start()
        await asyncio.sleep(3.5)
        house.forwarder.configure([house.configs["other"]])
        await asyncio.sleep(600)
        assert len(pacs.delivered) == 4, "what was in flight is finished"
        assert house.index.count("pacs", DELIVERED) == 4
        assert house.index.count("pacs", READY) == 96
        status = house.forwarder.snapshot()["pacs"]
        assert (status.configured, status.up, status.reason) == (False, False, NOT_CONFIGURED)
        assert status.active == 0
        assert house.forwarder.why("never heard of") == NOT_CONFIGURED
        house.forwarder.notify("pacs", 3)
        house.forwarder.notify("never heard of", 3)
        house.forwarder.configure(house.configs.values())
        await house.index.until_closed("pacs")
        assert sorted(pacs.delivered) == sorted(f"1.2.3.{n}" for n in range(1, 101))
        await house.stop()

    run(scenario())


def test_a_changed_destination_is_called_anew_and_an_unchanged_one_is_not() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.peer.latency = lambda uid: 0.1
        house.index.add("pacs", *(waiting(n) for n in range(1, 101)))
        house.start()
        await asyncio.sleep(1.05)
        house.forwarder.configure([house.config("pacs", associations=1)])
        await asyncio.sleep(1)
        assert len(house.peer.connects) == 1
        house.forwarder.configure([house.config("pacs", associations=3, identity="new port")])
        await house.index.until_closed("pacs")
        assert len(house.peer.connects) == 4
        assert house.peer.associations[0].released
        assert sorted(house.peer.delivered) == sorted(f"1.2.3.{n}" for n in range(1, 101))
        await house.stop()

    run(scenario())


def test_a_change_of_configuration_makes_a_dead_destination_be_tried() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.down()
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(1000)
        house.peer.connect_error = None
        house.forwarder.configure([house.config("pacs", identity="right port")])
        await asyncio.sleep(1)
        assert house.index.count("pacs", DELIVERED) == 1
        assert house.counts.availability == [("pacs", False), ("pacs", True)]
        await house.stop()

    run(scenario())


def test_stopping_finishes_what_is_in_flight_and_settles_it() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.latency = lambda uid: 1.0
        house.index.add("pacs", *(waiting(n) for n in range(1, 101)))
        house.start()
        await asyncio.sleep(2.5)
        await house.stop(grace=5.0)
        assert house.index.count("pacs", DELIVERED) == len(house.peer.delivered) == 6
        assert all(association.released for association in house.peer.associations)

    run(scenario())


def test_stopping_aborts_what_does_not_end_and_charges_it_nothing() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.stalled = asyncio.Event()
        house.index.add("pacs", *(waiting(n) for n in range(1, 11)))
        house.start()
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await house.stop(grace=3.0)
        assert loop.time() - begin < 4
        assert all(association.aborted for association in house.peer.associations)
        assert all(not row.history for row in house.index.rows["pacs"].values())

    run(scenario())


def test_stopping_does_not_wait_for_a_connection() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.connect_latency = 1000.0
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await house.stop(grace=60.0)
        assert loop.time() - begin < 0.1

    run(scenario())


def test_stopping_while_connecting_or_down_or_in_trouble_is_bounded() -> None:
    async def scenario() -> None:
        house = House("connecting", "down", "stuck")
        house.peers["connecting"].connect_latency = 1000.0
        house.peers["down"].down()
        house.peers["stuck"].latency = lambda uid: 1.0
        for name in house.peers:
            house.index.add(name, *(waiting(n) for n in range(1, 11)))
        house.start()
        await asyncio.sleep(1.5)
        house.index.broken = SpoolError("input/output error")
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await house.stop(grace=3.0)
        assert loop.time() - begin < 15

    run(scenario())
