"""0111, duplicate SOP instance: the answer to what arrived without our having heard of it."""

import asyncio
from dataclasses import replace

from router.net.errors import AssociationBroken
from router.spool.index_types import DeliveryState, Outcome
from tests.forward.fakes import MR, MR_PAIR, Answer, House, waiting
from tests.forward.virtual import run, wall

DELIVERED, DEAD, READY = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.READY
HAVE_IT = Answer(0x0111)


async def sent_after(*answers: Answer | Exception, whole: bool = True) -> list[Outcome]:
    """The outcomes of an instance whose attempts are answered so, on an idle association first."""
    house = House("pacs", associations=1)
    house.start()
    house.arrive("pacs", waiting(1, received_at=wall()))
    await house.index.until_closed("pacs")
    if not whole:
        house.spool.torn.add(2)
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


def test_a_duplicate_after_an_attempt_that_cost_nothing_was_a_dead_letter() -> None:
    """Regression: the association had lain idle and fell, which is charged to no instance, but
    the peer had stored it."""
    (outcome,) = run(sent_after(AssociationBroken("connection reset"), HAVE_IT))
    assert (outcome.state, outcome.status) == (DELIVERED, 0x0111)
    assert "earlier attempt" in outcome.reason


def test_a_duplicate_after_a_refusal_is_delivered() -> None:
    first, second = run(sent_after(Answer(0x0110), HAVE_IT))
    assert (first.state, second.state) == (READY, DELIVERED)


def test_a_duplicate_of_what_never_went_out_whole_was_taken_for_ours() -> None:
    """Regression: an attempt had been made, but was cut off in the data set: what the peer has
    under that UID cannot be from there, and may be another object."""
    cut = AssociationBroken("connection reset")
    outcomes = run(sent_after(cut, cut, HAVE_IT, whole=False))
    assert [outcome.state for outcome in outcomes] == [READY, DEAD]


def test_a_duplicate_after_a_restart_was_a_dead_letter() -> None:
    """Regression: it had been on its way when the gateway stopped or crashed, and no attempt of
    it was recorded."""

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
        assert after.index.last("pacs", 1).state is DELIVERED
        assert after.index.last("pacs", 2).state is DEAD
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
