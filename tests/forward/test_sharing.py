"""One association per study or per instance; what is never offered.  In virtual time."""

import asyncio
from collections import defaultdict
from pathlib import Path

import pytest

from router.forward.board import Board
from router.forward.regime import Outgoing
from router.forward.sharing import Sharing
from router.net.errors import ConnectFailed
from router.net.offer import Offer
from router.spool.index import Index
from router.spool.index_types import DeliveryState
from router.spool.record import Position
from tests.forward.fakes import (
    CT_PAIR,
    EXPLICIT,
    MR,
    MR_PAIR,
    Answer,
    FakeAssociation,
    House,
    waiting,
)
from tests.forward.test_with_index import Gateway, entry
from tests.forward.virtual import run, wall

DELIVERED, DEAD, READY = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.READY
GE_SYNTAX = "1.2.840.113619.5.2"


def studies_by_association(house: House) -> dict[FakeAssociation, set[str]]:
    study = {
        row.item.sop_instance_uid: row.item.study_instance_uid
        for row in house.index.rows["pacs"].values()
    }
    carried: dict[FakeAssociation, set[str]] = defaultdict(set)
    for one in house.peer.stored:
        carried[one.association].add(study[one.uid])
    return carried


def test_an_association_carries_one_study_and_a_study_one_association() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=3, association_per="study")
        house.index.add("pacs", *(waiting(n, study=f"1.{n // 100}") for n in range(1000)))
        house.start()
        await house.index.until_closed("pacs")
        assert len(house.peer.delivered) == len(set(house.peer.delivered)) == 1000
        carried = studies_by_association(house)
        assert [len(studies) for studies in carried.values()] == [1] * 10
        assert len(house.peer.connects) == 10
        assert house.peer.most_open == 3
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("associations", [1, 2])
def test_studies_that_came_interleaved_and_larger_than_what_is_in_hand(
    tmp_path: Path, associations: int
) -> None:
    """The queue has whole studies one after the other, however they came."""

    async def scenario() -> None:
        index = Index.open(tmp_path / "index.sqlite")
        entries = []
        for n in range(1, 3001):
            ref, meta = entry(n, wall(), "pacs")
            # Four times what is in hand at once, of each; and some latecomers of the first.
            study = "1.5.0" if n > 2900 else f"1.5.{n % 3}"
            entries.append((ref, meta._replace(study_instance_uid=study)))
        index.add(
            entries,
            Position(1, 9_000_000),
            suppress_duplicates=False,
            same_bytes=lambda one, two: False,
        )
        house = House(
            "pacs",
            index=Gateway(index),
            associations=associations,
            association_per="study",
        )
        house.peer.latency = lambda uid: 0.01
        house.start()
        while len(house.peer.stored) < 3000:
            await asyncio.sleep(1)
        carried = defaultdict(set)
        for one in house.peer.stored:
            number = int(one.uid.rpartition(".")[2])
            carried[one.association].add(entries[number - 1][1].study_instance_uid)
        assert [len(studies) for studies in carried.values()] == [1] * 3
        assert len(house.peer.connects) == 3, "none was begun twice"
        await house.stop()
        index.close()

    run(scenario())


def test_a_window_and_several_kinds_are_still_one_study() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4, association_per="study", asynchronous_operations=8)
        house.peer.window = 8
        kinds = ({}, {"sop_class": MR})
        house.index.add(
            "pacs", *(waiting(n, study=f"1.{n % 3}", **kinds[n % 2]) for n in range(1, 301))
        )
        house.start()
        await house.index.until_closed("pacs")
        assert len(house.peer.connects) == 3
        assert [len(studies) for studies in studies_by_association(house).values()] == [1] * 3
        await house.stop()

    run(scenario())


def test_what_comes_late_goes_on_the_same_association_while_it_lingers() -> None:
    async def scenario() -> None:
        house = House("pacs", association_per="study", linger=10.0)
        house.start()
        for number in range(1, 6):
            house.arrive("pacs", waiting(number, study="1.1"))
            await house.index.until_closed("pacs")
            await asyncio.sleep(5)
        assert len(house.peer.connects) == 1
        house.arrive("pacs", waiting(6, study="1.2"))
        await house.index.until_closed("pacs")
        assert len(house.peer.connects) == 2
        assert [len(studies) for studies in studies_by_association(house).values()] == [1, 1]
        await asyncio.sleep(11)
        assert all(association.released for association in house.peer.associations)
        await house.stop()

    run(scenario())


def test_another_study_takes_the_place_of_an_idle_association() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, association_per="study", linger=600.0)
        house.start()
        for number in range(1, 5):
            house.arrive("pacs", waiting(number, study=f"1.{number}"))
            await house.index.until_closed("pacs")
        assert len(house.peer.connects) == 4
        assert house.peer.most_open == 1
        await house.stop()

    run(scenario())


def test_something_urgent_does_not_wait_for_the_end_of_a_study() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, association_per="study")
        house.index.add("pacs", *(waiting(n, study="1.1") for n in range(1, 101)))
        house.start()
        await house.index.until(lambda: house.index.count("pacs", DELIVERED) > 5)
        house.arrive("pacs", waiting(500, study="1.2", priority=50))
        await house.index.until_closed("pacs")
        place = house.peer.delivered.index("1.2.3.500")
        assert place < 60, f"it was the {place}th of 101"
        assert len(house.peer.connects) == 3, "the first study goes on, on its own"
        assert all(len(studies) == 1 for studies in studies_by_association(house).values())
        await house.stop()

    run(scenario())


def test_nor_where_there_is_room_for_fewer_associations_than_it_may_have() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4, association_per="study")
        house.index.add("pacs", *(waiting(n, study="1.1") for n in range(1, 101)))
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=1))
        await house.index.until(lambda: house.index.count("pacs", DELIVERED) > 5)
        house.arrive("pacs", waiting(500, study="1.2", priority=50))
        await house.index.until_closed("pacs")
        assert house.peer.delivered.index("1.2.3.500") < 60
        assert house.peer.most_open == 1
        await house.stop()

    run(scenario())


def test_nothing_spins_while_all_that_waits_has_its_association() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4, association_per="study")
        house.peer.stalled = asyncio.Event()
        house.index.add("pacs", *(waiting(n, study="1.1") for n in range(1, 51)))
        house.start()
        await asyncio.sleep(1)
        leases, turns = house.index.leases, len(house.peer.connects)
        await asyncio.sleep(3600)
        assert (house.index.leases, len(house.peer.connects)) == (leases, turns) == (leases, 1)
        house.peer.stalled.set()
        house.peer.stalled = None
        await house.index.until_closed("pacs")
        await house.stop()

    run(scenario())


def test_a_study_goes_on_after_its_association_fell() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2, association_per="study")
        falls = iter([True])
        gone = ConnectFailed("gone")
        house.peer.answer = lambda uid: gone if next(falls, False) else Answer(0)
        house.index.add("pacs", *(waiting(n, study=f"1.{n % 2}") for n in range(1, 41)))
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 40
        assert all(len(studies) == 1 for studies in studies_by_association(house).values())
        await house.stop()

    run(scenario())


def test_a_pair_that_kills_associations_keeps_no_other_study_back() -> None:
    async def scenario() -> None:
        house = House("pacs", association_per="study")
        house.peer.poison = lambda pair: pair == MR_PAIR
        house.index.add(
            "pacs",
            *(waiting(n, study="1.1", sop_class=MR) for n in range(1, 4)),
            *(waiting(n, study=f"1.{n}") for n in range(10, 15)),
        )
        house.start()
        await house.index.until(lambda: house.index.count("pacs", DELIVERED) == 5)
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DEAD) == 3
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("per", ["study", "instance"])
def test_all_of_it_goes_after_the_destination_was_down(per: str) -> None:
    async def scenario() -> None:
        house = House("pacs", associations=3, association_per=per)
        house.peer.down()
        house.index.add("pacs", *(waiting(n, study=f"1.{n // 20}") for n in range(100)))
        house.start()
        await asyncio.sleep(3600)
        assert house.peer.stored == []
        assert len(house.peer.connects) < 50
        house.peer.connect_error = None
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 100
        if per == "study":
            assert all(len(studies) == 1 for studies in studies_by_association(house).values())
        else:
            assert len({id(one.association) for one in house.peer.stored}) == 100
        await house.stop()

    run(scenario())


def test_each_instance_has_its_own_association() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=3, association_per="instance", asynchronous_operations=8)
        house.peer.window = 8
        house.index.add(
            "pacs",
            *(waiting(n, sop_class=MR if n % 2 else CT_PAIR[0]) for n in range(1, 41)),
        )
        house.start()
        await house.index.until_closed("pacs")
        assert len(house.peer.associations) == 40
        assert len({id(one.association) for one in house.peer.stored}) == 40
        assert {len(proposed) for proposed in house.peer.proposed} == {1}
        assert house.peer.most_open <= 3
        await asyncio.sleep(0.1)
        assert all(association.released for association in house.peer.associations)
        await house.stop()

    run(scenario())


@pytest.mark.parametrize(
    ("offer", "why"),
    [
        (Offer(never=("MRImageStorage",)), "never_send of the remote has 'MRImageStorage'"),
        (Offer(syntaxes=(EXPLICIT,)), "transfer_syntaxes has only explicit-vr-le"),
    ],
)
def test_what_is_never_offered_is_dead_at_once_and_not_proposed(offer: Offer, why: str) -> None:
    async def scenario() -> None:
        house = House("pacs", offer=offer)
        unwanted = waiting(1, sop_class=MR, syntax=GE_SYNTAX)
        house.index.add("pacs", unwanted)
        house.start()
        await house.index.until_closed("pacs")
        outcome = house.index.last("pacs", 1)
        assert outcome.state is DEAD
        assert why in outcome.reason
        assert house.peer.connects == [], "nobody was called for that"
        house.arrive("pacs", waiting(2), waiting(3, sop_class=MR, syntax=GE_SYNTAX))
        await house.index.until_closed("pacs")
        assert house.index.last("pacs", 2).state is DELIVERED
        assert house.index.last("pacs", 3).state is DEAD
        assert house.peer.proposed == [[CT_PAIR]]
        await house.stop()

    run(scenario())


def test_a_reload_takes_another_offer_and_another_sharing() -> None:
    async def scenario() -> None:
        house = House("pacs", offer=Offer(never=("CTImageStorage",)))
        house.start()
        house.arrive("pacs", waiting(1))
        await house.index.until_closed("pacs")
        assert house.index.last("pacs", 1).state is DEAD
        house.forwarder.configure([house.config("pacs", association_per="instance")])
        house.arrive("pacs", *(waiting(n) for n in range(2, 6)))
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 4
        assert len(house.peer.associations) == 4
        house.forwarder.configure([house.config("pacs", association_per="study", linger=60.0)])
        house.arrive("pacs", *(waiting(n, study="1.9") for n in range(6, 9)))
        await house.index.until_closed("pacs")
        house.arrive("pacs", waiting(9, study="1.9"))
        await house.index.until_closed("pacs")
        assert len(house.peer.associations) == 5
        await house.stop()

    run(scenario())


def test_the_board_of_one_study() -> None:
    board = Board(limit=100, minimum=1, byte_limit=10**9)
    sharing = Sharing(board, lambda: (), "study")
    assert sharing.content
    board.add([waiting(1, study="1.1", attempts=3), waiting(2, study="1.2", sop_class=MR)])
    board.add([waiting(3, study="1.3", priority=5), waiting(4, study="1.2")])
    assert not sharing.content
    assert sharing.narrow([CT_PAIR, MR_PAIR], least_tried=False) == ([CT_PAIR], "1.3")
    assert sharing.outranked("1.1")
    assert not sharing.outranked("1.3")
    with sharing.opening("1.3"):
        assert sharing.narrow([CT_PAIR, MR_PAIR], least_tried=False) == ([CT_PAIR], "1.1")
        wanted = sharing.narrow([CT_PAIR, MR_PAIR], least_tried=True)
        assert wanted == ([CT_PAIR, MR_PAIR], "1.2")
        assert not sharing.outranked("1.1"), "it has its association already"
    taken = board.take({CT_PAIR}, None, "1.2")
    assert taken is not None
    assert taken[0].ref.id == 4
    assert board.take({CT_PAIR}, None, "1.2") is None
