"""0111, duplicate SOP instance: the answer to what arrived without our having heard of it."""

import asyncio
from dataclasses import replace

import pytest

from router.forward.verdict import HAS_ONE
from router.net.errors import AssociationBroken
from router.net.retry import Retry
from router.spool.index_types import DeliveryState, Outcome
from tests.forward.fakes import MR, MR_PAIR, Answer, House, waiting
from tests.forward.virtual import run, wall

DELIVERED, DEAD, READY = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.READY
HAVE_IT = Answer(0x0111)


async def sent_after(*answers: Answer | Exception) -> list[Outcome]:
    """The outcomes of an instance whose attempts are answered so, on an idle association first."""
    house = House("pacs", associations=1)
    house.start()
    house.arrive("pacs", waiting(1, received_at=wall()))
    await house.index.until_closed("pacs")
    given = list(answers)
    house.peer.answer = lambda uid: given.pop(0)
    house.arrive("pacs", waiting(2, received_at=wall()))
    await house.index.until_closed("pacs")
    await house.stop()
    assert not given
    return house.index.rows["pacs"][2].history


def test_a_duplicate_is_dead_when_nothing_was_sent_before() -> None:
    (outcome,) = run(sent_after(HAVE_IT))
    assert (outcome.state, outcome.status) == (DEAD, 0x0111)


@pytest.mark.parametrize("between", [(), (Answer(0xA700),), (AssociationBroken("reset"),)])
def test_a_duplicate_after_an_answer_that_was_lost_may_be_another_object(
    between: tuple[Answer | Exception, ...],
) -> None:
    """Regression: it was called delivered.  What the peer has may have come from elsewhere, or long
    ago, and be the uncorrected one."""
    lost = AssociationBroken("connection reset")
    last = run(sent_after(lost, *between, HAVE_IT))[-1]
    assert (last.state, last.status) == (DEAD, 0x0111)
    assert HAS_ONE in last.reason


@pytest.mark.parametrize("status", [0x0110, 0x0210, 0x0213, 0xA700, 0xFE00])
def test_a_refusal_was_taken_for_an_answer_that_was_lost(status: int) -> None:
    """Regression: the peer said that it had not stored it, so that what it has is another."""
    outcomes = run(sent_after(Answer(status), HAVE_IT))
    assert [outcome.state for outcome in outcomes] == [READY, DEAD]


def test_a_remote_of_which_it_is_said_has_it() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1, retry=Retry(statuses={"0111": "delivered"}))
        given: list[Answer | Exception] = [AssociationBroken("connection reset"), HAVE_IT]
        house.peer.answer = lambda uid: given.pop(0)
        house.start()
        house.arrive("pacs", waiting(1, received_at=wall()))
        await house.index.until_closed("pacs")
        await house.stop()
        last = house.index.last("pacs", 1)
        assert (last.state, last.status) == (DELIVERED, 0x0111)

    run(scenario())


def test_all_that_waited_at_a_restart_was_taken_for_sent() -> None:
    """Regression: what no attempt is recorded of may never have been sent, and what the peer has
    of its UID may be another object.  What was on its way is a dead letter too, that says so."""

    async def scenario() -> None:
        before = House("pacs", associations=1)
        before.peer.stalled = asyncio.Event()
        before.start()
        before.arrive("pacs", waiting(1, received_at=wall()))
        await asyncio.sleep(1.0)
        assert before.peer.asked == ["1.2.3.1"]
        await before.stop(0.0)
        item = before.index.rows["pacs"][1].item
        assert item.attempts == 0

        after = House("pacs", associations=1)
        after.peer.answer = lambda uid: HAVE_IT
        after.start()
        after.arrive("pacs", item, replace(waiting(2), received_at=wall()))
        await after.index.until_closed("pacs")
        for number in (1, 2):
            last = after.index.last("pacs", number)
            assert last.state is DEAD
            assert "has an instance of this UID already, which may be this one" in last.reason
        await after.stop()

    run(scenario())


def test_a_pair_that_was_one_too_many_was_dead_at_once() -> None:
    """Regression: refused among others with result 1 or 2, which some peers give for what goes
    beyond the contexts that they take, it was never proposed alone."""

    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.peer.accepts = lambda pair: pair != MR_PAIR or len(house.peer.proposed[-1]) == 1
        house.peer.doubts = lambda pair: True
        mixed = [waiting(n, sop_class=MR) if n % 2 else waiting(n) for n in range(1, 101)]
        house.start()
        house.arrive("pacs", *mixed)
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 100
        assert len(house.peer.connects) <= 4
        # It stays so: who came later is not proposed along with others either.
        house.peer.proposed.clear()
        await asyncio.sleep(10)
        house.arrive("pacs", waiting(201), waiting(202, sop_class=MR))
        await house.index.until_closed("pacs")
        assert all(len(proposed) == 1 for proposed in house.peer.proposed)
        await house.stop()

    run(scenario())


def test_a_pair_that_is_refused_alone_too_is_dead() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=1)
        house.peer.accepts = lambda pair: pair != MR_PAIR
        house.peer.doubts = lambda pair: True
        house.start()
        house.arrive("pacs", waiting(1), *(waiting(n, sop_class=MR) for n in range(2, 52)))
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DEAD) == 50
        assert "no presentation context" in house.index.last("pacs", 2).reason
        assert len(house.peer.connects) == 2
        await house.stop()

    run(scenario())
