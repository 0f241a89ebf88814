"""Over how many associations a destination is sent to."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from router.forward.regime import Outgoing
from router.net.errors import AssociationRejected, AssociationTimeout, ConnectFailed
from router.spool.index_types import DeliveryState
from tests.forward.fakes import CT, MR, Answer, FakePeer, House, timed_out, waiting
from tests.forward.night import status
from tests.forward.virtual import run, wall

DELIVERED, READY = DeliveryState.DELIVERED, DeliveryState.READY


def rejected() -> AssociationRejected:
    return AssociationRejected("PACS", 2, 3, 2)  # transient, presentation: local limit exceeded


def test_a_peer_that_takes_no_more_associations_is_not_down() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4)
        peer = house.peer
        connect = peer.connect

        async def two_at_most(proposals):  # type: ignore[no-untyped-def]
            if sum(not each.closed for each in peer.associations) >= 2:
                peer.connects.append(asyncio.get_running_loop().time())
                raise rejected()
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=two_at_most)
        peer.latency = lambda uid: 0.1
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 2001)))
        house.start()
        await asyncio.sleep(1)
        assert status(house).limited == "2 of 4 associations, as it takes no more"
        await house.index.until_closed("pacs")
        assert house.counts.availability == []
        assert peer.most_open == 2
        assert len(peer.connects) <= 2 + 3, "it is asked for another ever more rarely"
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("associations", [2, 4])
def test_a_peer_of_one_association_is_not_down_while_ours_idles_there(associations: int) -> None:
    async def scenario() -> None:
        house = House("pacs", associations=associations)
        peer = house.peer
        connect = peer.connect

        async def one_at_most(proposals):  # type: ignore[no-untyped-def]
            if any(not each.closed for each in peer.associations):
                peer.connects.append(asyncio.get_running_loop().time())
                raise rejected()
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=one_at_most)
        house.start()
        house.arrive("pacs", waiting(1))
        await asyncio.sleep(0.5)
        house.arrive("pacs", waiting(2, sop_class=MR))  # which the one that idles does not accept
        await asyncio.sleep(0.5)
        assert house.index.count("pacs", DeliveryState.DELIVERED) == 2
        assert house.counts.availability == []
        assert len(peer.connects) <= 3
        await house.stop()

    run(scenario())


def test_a_new_peer_that_rejects_is_down_though_the_old_one_is_still_sent_to() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.latency = lambda uid: 100.0
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(1)
        other = FakePeer()
        other.connect_error = rejected()
        config = replace(house.configs["pacs"], connect=other.connect, identity=1, peer=1)
        house.forwarder.configure([config])
        house.arrive("pacs", waiting(2, study="1.9"))
        await asyncio.sleep(10)
        assert house.counts.availability == [("pacs", False)]
        assert len(other.connects) <= 4
        await house.stop(grace=0)

    run(scenario())


def one_after_the_other(peer: FakePeer, patience: float = 30.0) -> Callable[..., Awaitable[object]]:
    """`connect` of a peer that answers a request for an association only once it is done with the
    one that it has, as DCMTK's storescp."""
    connect = peer.connect

    async def patient(proposals):  # type: ignore[no-untyped-def]
        try:
            async with asyncio.timeout(patience):
                while any(not each.closed for each in peer.associations):
                    await asyncio.sleep(0.25)
        except TimeoutError:
            peer.connects.append(asyncio.get_running_loop().time())
            raise AssociationTimeout("PACS did not answer the association request") from None
        return await connect(proposals)

    return patient


@pytest.mark.parametrize("latency", [0.5, 10.0, 45.0])
def test_a_peer_that_lets_a_second_association_wait_is_not_down(latency: float) -> None:
    async def scenario() -> None:
        house = House("pacs", asynchronous_operations=8)
        peer = house.peer
        peer.latency = lambda uid: latency
        connect = one_after_the_other(peer)
        house.configs["pacs"] = replace(house.configs["pacs"], connect=connect)
        kinds = [MR] + [CT] * 49
        house.index.add(
            "pacs",
            *(waiting(n, study=f"1.{n // 50}", sop_class=kinds[n % 50]) for n in range(1, 301)),
        )
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 300
        assert {row.item.attempts for row in house.index.rows["pacs"].values()} == {1}
        assert house.counts.availability == []
        await house.stop()

    run(scenario())


def test_a_peer_that_hangs_is_down_though_an_association_stands() -> None:
    async def scenario() -> None:
        house = House("pacs")
        peer = house.peer
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 11)))
        peer.latency = lambda uid: 60.0
        peer.answer = lambda uid: timed_out()
        connect = one_after_the_other(peer)

        async def hangs(proposals):  # type: ignore[no-untyped-def]
            if peer.associations:
                await asyncio.sleep(30)
                raise AssociationTimeout("PACS did not answer the association request")
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=hangs)
        house.start()
        await asyncio.sleep(100)
        assert house.counts.availability == [("pacs", False)]
        await house.stop(grace=0)

    run(scenario())


@pytest.mark.parametrize("answers", [True, False])
def test_no_connection_beside_one_that_is_answered_is_no_sign_of_a_dead_peer(answers: bool) -> None:
    async def scenario() -> None:
        house = House("pacs")
        peer = house.peer
        connect = peer.connect
        peer.latency = lambda uid: 3.0 if answers else 1000.0

        async def no_more(proposals):  # type: ignore[no-untyped-def]
            if peer.associations:
                await asyncio.sleep(10)
                raise ConnectFailed("PACS could not be connected to within 10 s")
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=no_more)
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 31)))
        house.start()
        await asyncio.sleep(20)
        assert house.counts.availability == ([] if answers else [("pacs", False)])
        await house.stop(grace=0)

    run(scenario())


def test_a_rejection_with_nobody_at_work_is_a_failure() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4)
        house.peer.connect_error = rejected()
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(1)
        assert house.counts.availability == [("pacs", False)]
        await house.stop()

    run(scenario())


def test_failures_shut_the_window_fast_and_answers_open_it_slowly() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=8)
        peer = house.peer
        peer.latency = lambda uid: 1.0
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 401)))
        house.start()
        await asyncio.sleep(3.5)
        assert peer.most_open == 8
        peer.answer = lambda uid: timed_out()
        await asyncio.sleep(1)
        peer.answer = lambda uid: Answer(0)
        peer.most_open = 0
        await house.index.until(lambda: status(house).up)
        before = len(peer.stored)
        await house.index.until(lambda: len(peer.stored) >= before + 3)
        assert peer.most_open <= 3
        await house.index.until(lambda: house.index.count("pacs", READY) <= 20)
        assert peer.most_open == 8
        await house.stop()

    run(scenario())


def test_one_refusal_for_want_of_resources_halves_the_window() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4)
        house.peer.latency = lambda uid: 1.0
        house.peer.answer = lambda uid: Answer(0xA700 if uid == "1.2.3.7" else 0)
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 301)))
        house.start()
        seen = set()
        while house.index.count("pacs", READY) > 100:
            await asyncio.sleep(0.1)
            seen.add(status(house).limited)
        assert "2 of 4 associations after failures" in seen
        assert status(house).limited == ""
        assert house.counts.availability == []
        await house.stop(grace=0)

    run(scenario())


def test_all_together_have_no_more_associations_than_allowed() -> None:
    async def scenario() -> None:
        names = [f"d{n}" for n in range(5)]
        house = House(*names, associations=8)
        for name in names:
            for n in range(1, 101):
                house.index.add(name, waiting(n, study=f"1.{n}"))
        for peer in house.peers.values():
            peer.latency = lambda uid: 0.5
        most = 0

        def count() -> int:
            return sum(not a.closed for p in house.peers.values() for a in p.associations)

        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=9))
        for _ in range(300):
            await asyncio.sleep(0.05)
            most = max(most, count())
        assert most == 9
        for name in names:
            await house.index.until_closed(name)
        assert all(peer.stored for peer in house.peers.values())
        await house.stop()

    run(scenario())


def test_dead_and_silent_destinations_hold_no_places_of_the_others() -> None:
    async def scenario() -> None:
        names = ["dead", "silent", "late", "well"]
        house = House(*names, associations=4)
        house.peers["dead"].connect_error = ConnectFailed("no")
        house.peers["dead"].connect_latency = 10.0
        house.peers["silent"].stalled = asyncio.Event()
        for name in ("dead", "silent", "well"):
            for n in range(1, 1001):
                house.index.add(name, waiting(n, study=f"1.{n}"))
        house.peers["well"].latency = lambda uid: 0.1
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=6))
        await asyncio.sleep(10)
        assert status(house, "well").in_flight >= 1
        rate = len(house.peers["well"].stored)
        assert rate > 90
        house.arrive("late", waiting(1))
        began = wall()
        await house.index.until_closed("late")
        assert wall() - began < 1, "its first place is its own"
        house.peers["silent"].stalled.set()
        await house.stop(grace=0)

    run(scenario())


def test_a_limit_that_is_lifted_is_used() -> None:
    async def scenario() -> None:
        house = House("a", "b", associations=4)
        for name in "ab":
            for n in range(1, 1001):
                house.index.add(name, waiting(n, study=f"1.{n}", sop_class=MR))
            house.peers[name].latency = lambda uid: 0.5
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=2))
        await asyncio.sleep(20)
        assert [house.peers[name].most_open for name in "ab"] == [1, 1]
        house.forwarder.configure(house.configs.values(), outgoing=Outgoing(associations=math.inf))
        await asyncio.sleep(20)
        assert [house.peers[name].most_open for name in "ab"] == [4, 4]
        house.forwarder.configure(house.configs.values(), outgoing=Outgoing(associations=2))
        await asyncio.sleep(20)
        opened = [sum(not a.closed for a in house.peers[name].associations) for name in "ab"]
        assert opened == [1, 1], "who had more gives it up"
        await house.stop()

    run(scenario())


class Aside:
    """An association that carries nothing of the queue."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def ended(self) -> None:
        await self.over.wait()


def test_an_association_beside_the_queue_counts_and_sending_makes_room() -> None:
    async def scenario() -> None:
        house = House("a", "b", associations=4, linger=1000.0)
        for name in "ab":
            for n in range(1, 201):
                house.index.add(name, waiting(n, study=f"1.{n}"))
            house.peers[name].latency = lambda uid: 0.5
        open_to_a = lambda: sum(not one.closed for one in house.peers["a"].associations)  # noqa: E731
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=2))
        await asyncio.sleep(10)
        assert open_to_a() == 1
        began, seen = wall(), []

        async def connect() -> Aside:
            await asyncio.sleep(0.1)  # one that is being released counts no more
            seen.append(open_to_a())
            return Aside()

        aside = await house.forwarder.aside("a", connect)
        assert (wall() - began < 1, seen) == (True, [0])
        before = len(house.peers["a"].stored)
        await asyncio.sleep(10)
        assert len(house.peers["a"].stored) == before, "its only place is taken"
        assert "0 of 4 associations" in status(house, "a").limited
        aside.over.set()
        await asyncio.sleep(10)
        assert len(house.peers["a"].stored) > before + 15
        await house.index.until_closed("a")
        aside = await house.forwarder.aside("a", connect)  # what lies idle is let go
        assert seen == [0, 0]
        aside.over.set()
        await asyncio.sleep(0.1)
        await house.stop(grace=0)

    run(scenario())


def test_one_that_cannot_be_opened_beside_the_queue_keeps_no_place() -> None:
    async def scenario() -> None:
        house = House("a", associations=4)
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=1))

        async def connect() -> Aside:
            raise ConnectFailed("no")

        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await house.forwarder.aside("a", connect)
        house.arrive("a", waiting(1))
        await house.index.until_closed("a")
        await house.stop()

    run(scenario())
