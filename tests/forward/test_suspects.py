"""One proposal that a peer cannot read must not close a destination to everything else."""

import asyncio

import pytest

from router.forward.suspects import CONTROL, MEMORY, Suspects, may_be_of_a_proposal
from router.net.errors import (
    AssociationAborted,
    AssociationBroken,
    AssociationError,
    AssociationRejected,
    ConnectFailed,
)
from router.spool.index_types import DeliveryState
from tests.forward.fakes import CT_PAIR, EXPLICIT, MR, MR_PAIR, House, waiting
from tests.forward.virtual import run

DELIVERED, DEAD, READY = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.READY
ODD = "1.2.3." + "4" * 59
ODD_PAIR = (ODD, EXPLICIT)


def test_a_poison_proposal_closes_a_destination_to_everybody() -> None:
    """Regression: all waiting pairs were proposed together, with every probe, for ever."""

    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.poison = lambda pair: pair == ODD_PAIR
        house.arrive("pacs", waiting(1, sop_class=ODD, study="1.1"))
        house.arrive("pacs", *(waiting(n, study="1.2") for n in range(2, 40)))
        house.arrive("pacs", *(waiting(n, sop_class=MR, study="1.3") for n in range(40, 60)))
        house.start()
        await house.index.until(lambda: house.index.count("pacs", DELIVERED) == 58)
        assert asyncio.get_running_loop().time() < 1060
        # More comes all the time; the poison uses up its attempts and goes.
        number = 100
        while house.index.count("pacs", READY):
            house.arrive("pacs", waiting(number), waiting(number + 1, sop_class=MR))
            number += 2
            await asyncio.sleep(20)
        assert house.index.count("pacs", DEAD) == 1
        dead = house.index.last("pacs", 1)
        assert "given up after 5 attempts" in dead.reason
        assert "alone failed" in dead.reason
        assert ODD in dead.reason
        assert house.index.count("pacs", DELIVERED) == 58 + number - 100
        assert house.counts.availability == [("pacs", False), ("pacs", True)]
        assert house.counts.associations_failed
        assert {kind for _, kind in house.counts.associations_failed} == {"aborted"}
        assert all(pairs == [ODD_PAIR] for pairs in house.peer.proposed[1:] if ODD_PAIR in pairs)
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("associations", [1, 4])
def test_a_poison_proposal_alone_ends_as_a_dead_letter(associations: int) -> None:
    async def scenario() -> None:
        house = House("pacs", associations=associations)
        house.peer.poison = lambda pair: pair == ODD_PAIR
        house.arrive("pacs", waiting(1, sop_class=ODD), waiting(2, sop_class=ODD))
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DEAD) == 2
        assert [CONTROL] in house.peer.proposed
        house.arrive("pacs", waiting(3))
        before = asyncio.get_running_loop().time()
        await house.index.until(lambda: house.index.count("pacs", DELIVERED) == 1)
        assert asyncio.get_running_loop().time() < before + 60
        await house.stop()

    run(scenario())


def test_a_peer_that_aborts_every_request_for_hours_costs_no_instance_an_attempt() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.poison = lambda pair: True
        house.arrive("pacs", waiting(1, sop_class=ODD), waiting(2), waiting(3, sop_class=MR))
        house.start()
        await asyncio.sleep(7200)
        assert all(not row.history for row in house.index.rows["pacs"].values())
        assert 20 < len(house.peer.connects) < 60
        house.peer.poison = lambda pair: False
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 3
        assert house.forwarder.snapshot()["pacs"].up
        await house.stop()

    run(scenario())


def test_what_failed_alone_is_proposed_with_others_again_when_it_was_accepted() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.peer.poison = lambda pair: pair == MR_PAIR
        house.arrive("pacs", waiting(1), waiting(2, sop_class=MR))
        house.start()
        await house.index.until(lambda: house.index.count("pacs", DELIVERED) == 1)
        house.peer.poison = lambda pair: False
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 2
        await asyncio.sleep(10)
        house.arrive("pacs", waiting(3), waiting(4, sop_class=MR))
        await house.index.until_closed("pacs")
        assert set(house.peer.proposed[-1]) >= {CT_PAIR, MR_PAIR}
        await house.stop()

    run(scenario())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AssociationAborted("PACS", 2, 6), True),
        (AssociationBroken("PACS closed the connection"), True),
        (AssociationRejected("PACS", 1, 1, 1), True),
        (AssociationRejected("PACS", 1, 1, 7), False),
        (AssociationRejected("PACS", 1, 1, 3), False),
        (AssociationRejected("PACS", 2, 3, 2), False),
        (ConnectFailed("refused"), False),
    ],
)
def test_which_failures_a_proposal_can_be_to_blame_for(
    error: AssociationError, expected: bool
) -> None:
    assert may_be_of_a_proposal(error) is expected


def test_pairs_go_together_again_after_a_while() -> None:
    suspects = Suspects()
    assert suspects.choose([CT_PAIR, MR_PAIR], 0.0, probing=False) == ([CT_PAIR, MR_PAIR], False)
    suspects.failed([CT_PAIR, MR_PAIR], 0.0)
    assert suspects.choose([CT_PAIR, MR_PAIR], 1.0, probing=True) == ([CT_PAIR], True)
    suspects.failed([CT_PAIR], 1.0)
    assert suspects.choose([CT_PAIR, MR_PAIR], 2.0, probing=True) == ([MR_PAIR], True)
    suspects.stood([MR_PAIR], 2.0)
    assert suspects.to_blame(CT_PAIR, 3.0)
    assert not suspects.to_blame(CT_PAIR, 3.0 + MEMORY)
    suspects.stood([CT_PAIR], 4.0)
    assert suspects.choose([CT_PAIR, MR_PAIR], 5.0, probing=False) == ([CT_PAIR, MR_PAIR], False)
    assert not suspects.together(ODD_PAIR, 5.0)
    assert suspects.together(ODD_PAIR, MEMORY)
