"""Forwarding out of the real index, on a disk."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

from router.forward.throttle import Speed
from router.net.errors import AssociationBroken
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Filter, Outcome, Settled, Waiting
from router.spool.record import InstanceMeta, Position, Ref, RouteMeta
from tests.forward.fakes import CT, EXPLICIT, Answer, House
from tests.forward.virtual import run, wall


class Gateway:
    """The index without its thread: in virtual time nothing may happen elsewhere."""

    def __init__(self, index: Index) -> None:
        self.index = index

    async def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        await asyncio.sleep(0.001)
        return self.index.lease(destination, limit, now, exclude, least_priority)

    async def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        await asyncio.sleep(0.001)
        return self.index.settle(outcomes)

    async def next_due(
        self, destination: str, exclude: Collection[int], least_priority: int | None = None
    ) -> float | None:
        await asyncio.sleep(0.001)
        return self.index.next_due(destination, exclude, least_priority)


def entry(number: int, at: float, *destinations: str) -> tuple[Ref, InstanceMeta]:
    meta = InstanceMeta(
        received_at=at,
        association="in-1",
        calling_ae="CT1",
        called_ae="ROUTER",
        source="10.0.0.1",
        remote="ct-room-1",
        sop_class_uid=CT,
        sop_instance_uid=f"1.2.3.{number}",
        transfer_syntax_uid=EXPLICIT,
        study_instance_uid=f"1.5.{number % 11}",
        disposition="route",
        routes=tuple(RouteMeta(name, "all", 0) for name in destinations),
    )
    return Ref(number, 1, number * 1000, number * 1000 + 100, 800, number), meta


def test_two_destinations_one_down_for_a_while_and_every_account_balances(tmp_path: Path) -> None:
    async def scenario() -> None:
        index = Index.open(tmp_path / "index.sqlite")
        house = House("pacs", "vna", associations=2, index=Gateway(index))
        house.peers["vna"].down()
        flaky = set(range(7, 500, 50))
        seen: set[str] = set()

        def answer(uid: str) -> Answer:
            if int(uid.rpartition(".")[2]) in flaky and uid not in seen:
                seen.add(uid)
                return Answer(0x0110)
            return Answer(0xC000 if uid == "1.2.3.13" else 0)

        house.peers["pacs"].answer = answer
        house.start()
        for first in range(1, 501, 50):
            entries = [entry(n, wall(), "pacs", "vna") for n in range(first, first + 50)]
            index.add(
                entries,
                Position(1, (first + 50) * 1000),
                suppress_duplicates=True,
                same_bytes=lambda one, two: False,
            )
            for name in ("pacs", "vna"):
                house.forwarder.notify(name, 50)
            await asyncio.sleep(0.2)
        await asyncio.sleep(30)
        account = index.account()
        pacs, vna = account.destinations["pacs"], account.destinations["vna"]
        assert (pacs.delivered, pacs.dead, pacs.waiting) == (499, 1, 0)
        assert (vna.delivered, vna.waiting) == (0, 500)
        house.peers["vna"].connect_error = None
        await asyncio.sleep(120)
        account = index.account()
        assert account.balanced
        assert account.destinations["vna"].delivered == 500
        assert sorted([*house.peers["pacs"].delivered, "1.2.3.13"]) == sorted(
            house.peers["vna"].delivered
        )

        house.peers["pacs"].answer = lambda uid: Answer(0)
        index.retry(Filter(destination="pacs", state=DeliveryState.DEAD), at=wall())
        house.forwarder.refresh("pacs")
        await asyncio.sleep(1)
        assert index.account().destinations["pacs"].delivered == 500
        await house.stop()
        index.close()

    run(scenario())


def test_an_instance_that_an_operator_drops_while_it_waits_is_not_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        index = Index.open(tmp_path / "index.sqlite")
        house = House("pacs", associations=1, index=Gateway(index))
        house.peer.latency = lambda uid: 1.0
        entries = [entry(n, wall(), "pacs") for n in range(1, 11)]
        index.add(
            entries,
            Position(1, 20_000),
            suppress_duplicates=True,
            same_bytes=lambda one, two: False,
        )
        house.start()
        await asyncio.sleep(2.5)
        index.drop(Filter(destination="pacs", ids=(8, 9)), at=wall(), reason="not wanted")
        house.forwarder.refresh("pacs")
        await asyncio.sleep(60)
        pacs = index.account().destinations["pacs"]
        assert (pacs.delivered, pacs.dropped, pacs.waiting) == (8, 2, 0)
        assert not {"1.2.3.8", "1.2.3.9"} & set(house.peer.asked)
        await house.stop()
        index.close()

    run(scenario())


def test_what_a_peer_has_of_its_uid_is_not_what_it_was_sent_without_an_answer(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        index = Index.open(tmp_path / "index.sqlite")
        house = House("pacs", index=Gateway(index))
        answers = [AssociationBroken("reset"), Answer(0x0111)]
        house.peer.answer = lambda uid: answers.pop(0)
        index.add(
            [entry(1, wall(), "pacs")],
            Position(1, 9000),
            suppress_duplicates=True,
            same_bytes=lambda one, two: False,
        )
        house.start()
        await asyncio.sleep(60)
        assert not answers
        (dead,) = index.queue_list(Filter(state=DeliveryState.DEAD), 10)
        assert "may be this one or another" in dead.delivery.reason
        assert index.account().destinations["pacs"].delivered == 0
        assert not house.counts.delivered
        assert house.counts.failed.count(("pacs", "dead")) == 1
        await house.stop()
        index.close()

    run(scenario())


def test_what_goes_in_place_of_a_refused_one_does_not_stand_behind_what_is_less_urgent(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        index = Index.open(tmp_path / "index.sqlite")
        house = House("pacs", speed=Speed(rate=1 / 6), index=Gateway(index))
        refused = [0x0117, 0x0000]
        house.peer.answer = lambda uid: Answer(refused.pop(0) if uid == "1.2.3.1" else 0)
        entries = [entry(n, wall(), "pacs") for n in range(1, 601)]
        _, meta = entries[0]
        ref = entries[0][0]._replace(id=1000)
        urgent = (ref, meta._replace(routes=(RouteMeta("pacs", "all", 10),)))
        index.add(
            [*entries, urgent],
            Position(1, 10**6),
            suppress_duplicates=True,
            same_bytes=lambda one, two: True,
        )
        house.start()
        while len(refused) == 2:
            await asyncio.sleep(0.1)
        await asyncio.sleep(15)
        assert not refused, "it was sent before the many that were leased"
        await house.stop(grace=0)
        index.close()

    run(scenario())
