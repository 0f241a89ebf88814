"""The association pool, against a peer without a network, in virtual time."""

import asyncio

import pytest

from router.net.errors import AssociationBroken, ConnectFailed
from router.net.pool import MAX_CONTEXTS, Checkout, Pool, Proposal
from tests.forward.fakes import CT_PAIR, MR_PAIR, FakeAssociation, FakePeer
from tests.forward.virtual import run

OTHER = ("1.2.840.1", "1.2.840.2")


def pool(peer: FakePeer, limit: int = 2, linger: float = 2.0) -> Pool:
    clock = asyncio.get_running_loop().time
    return Pool(peer.connect, limit=limit, linger=linger, clock=clock, refusal_memory=600.0)


async def got(subject: Pool, *needed: Proposal) -> Checkout:
    checkout = await subject.acquire(needed)
    assert checkout is not None
    return checkout


def pairs(first: int, last: int) -> list[Proposal]:
    return [(f"1.2.{n}", "1.9") for n in range(first, last)]


def test_an_idle_association_is_used_again_until_it_has_lingered() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer)
        first = await got(subject, CT_PAIR)
        assert not first.reused
        assert subject.next_expiry is None
        subject.release(first)
        again = await got(subject, CT_PAIR)
        assert again.association is first.association
        assert again.reused
        subject.release(again)
        expiry = subject.next_expiry
        assert expiry == asyncio.get_running_loop().time() + 2.0
        await asyncio.sleep(1.9)
        subject.reap()
        assert subject.open == 1
        await asyncio.sleep(0.2)
        subject.reap()
        await subject.aclose()
        assert peer.associations[0].released
        assert subject.empty

    run(scenario())


def test_one_context_per_pair_and_the_most_urgent_first() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer)
        await got(subject, MR_PAIR, CT_PAIR, MR_PAIR)
        assert peer.proposed == [[MR_PAIR, CT_PAIR]]
        await subject.aclose()

    run(scenario())


def test_three_hundred_pairs_are_split_and_what_is_on_none_goes_first() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer, limit=3)
        needed = pairs(0, 300)
        first = await got(subject, *needed)
        second = await got(subject, *needed)
        third = await got(subject, *needed)
        assert [len(proposed) for proposed in peer.proposed] == [128, 128, 128]
        assert list(first.accepted) == needed[:128]
        assert list(second.accepted) == needed[128:256]
        assert list(third.accepted)[:44] == needed[256:]
        await subject.aclose()

    run(scenario())


def test_a_pair_that_none_has_replaces_the_longest_idle_one() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer, limit=2)
        first = await got(subject, CT_PAIR)
        second = await got(subject, CT_PAIR)
        subject.release(first)
        await asyncio.sleep(0.5)
        subject.release(second)
        third = await got(subject, MR_PAIR)
        assert peer.associations[0].released
        assert not peer.associations[1].released
        assert peer.most_open == 2
        assert MR_PAIR in third.accepted
        assert CT_PAIR in third.accepted, "what was needed lately is proposed along"
        await subject.aclose()

    run(scenario())


def test_another_user_of_a_served_pair_gets_what_is_idle() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer, limit=2)
        peer.accepts = lambda pair: pair == CT_PAIR
        ct = await got(subject, CT_PAIR)
        peer.accepts = lambda pair: pair == MR_PAIR
        mr = await got(subject, MR_PAIR)
        subject.release(mr)
        assert (await got(subject, CT_PAIR, MR_PAIR)).association is mr.association
        assert ct.busy
        await subject.aclose()

    run(scenario())


def test_a_refused_pair_is_not_proposed_again_until_its_time() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        peer.accepts = lambda pair: pair != MR_PAIR
        subject = pool(peer)
        assert await subject.acquire([MR_PAIR]) is None
        assert subject.refused(MR_PAIR)
        assert await subject.acquire([MR_PAIR]) is None
        assert len(peer.connects) == 1
        first = await got(subject, MR_PAIR, CT_PAIR)
        assert peer.proposed[1] == [CT_PAIR]
        await asyncio.sleep(600)
        assert not subject.refused(MR_PAIR)
        subject.release(first)
        assert await subject.acquire([MR_PAIR]) is None
        assert len(peer.connects) == 3
        subject.forget_refusals()
        peer.accepts = lambda pair: True
        assert MR_PAIR in (await got(subject, MR_PAIR)).accepted
        await subject.aclose()

    run(scenario())


def test_whatever_was_ever_refused_was_remembered() -> None:
    """Regression: a sender that makes up SOP classes filled the memory."""

    async def scenario() -> None:
        peer = FakePeer()
        peer.accepts = lambda pair: False
        subject = pool(peer)
        for first in range(0, 50 * MAX_CONTEXTS, MAX_CONTEXTS):
            assert await subject.acquire(pairs(first, first + MAX_CONTEXTS)) is None
        assert len(subject._refused) <= 4096 + MAX_CONTEXTS
        await asyncio.sleep(500)
        assert await subject.acquire([MR_PAIR]) is None
        await asyncio.sleep(200)
        for first in range(50 * MAX_CONTEXTS, 82 * MAX_CONTEXTS, MAX_CONTEXTS):
            assert await subject.acquire(pairs(first, first + MAX_CONTEXTS)) is None
        assert subject.refused(MR_PAIR), "its time is not over"
        await subject.aclose()

    run(scenario())


def test_a_closed_association_is_neither_given_out_nor_counted() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer, limit=1)
        first = await got(subject, CT_PAIR)
        peer.associations[0].end()
        assert first.retired
        subject.release(first)
        assert subject.open == 0
        second = await got(subject, CT_PAIR)
        peer.associations[1].end()
        third = await got(subject, CT_PAIR)
        assert not third.reused
        subject.release(second)
        subject.release(third)
        peer.associations[2].end()
        assert not (await got(subject, CT_PAIR)).reused
        await subject.aclose()

    run(scenario())


def test_a_failure_to_open_is_told_and_leaves_room() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer, limit=1)
        peer.down()
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await subject.acquire([CT_PAIR])
        opening = asyncio.ensure_future(subject.acquire([CT_PAIR]))
        await asyncio.sleep(0.001)
        opening.cancel()
        await asyncio.wait([opening])
        peer.connect_error = None
        await got(subject, CT_PAIR)
        with pytest.raises(RuntimeError):
            await subject.acquire([CT_PAIR])
        await subject.aclose()

    run(scenario())


def test_a_retired_pool_lets_go_as_it_gets_back() -> None:
    async def scenario() -> None:
        peer = FakePeer()
        subject = pool(peer)
        busy, idle = await got(subject, CT_PAIR), await got(subject, CT_PAIR)
        subject.release(idle)
        subject.retire()
        await asyncio.sleep(0.1)
        assert [a.released for a in peer.associations] == [False, True]
        assert busy.retired
        subject.release(busy)
        await subject.aclose()
        assert peer.associations[0].released
        assert subject.empty

    run(scenario())


@pytest.mark.parametrize("how", ["hangs", "breaks"])
def test_a_peer_that_does_not_release_is_aborted(how: str) -> None:
    class Stubborn(FakeAssociation):
        async def release(self) -> None:
            if how == "breaks":
                raise AssociationBroken("connection lost")
            await asyncio.Event().wait()

    async def scenario() -> None:
        peer = FakePeer()

        async def connect(proposals: object) -> FakeAssociation:
            return Stubborn(peer, [CT_PAIR], "out-1")

        subject = Pool(connect, limit=1, linger=2.0, clock=asyncio.get_running_loop().time)
        checkout = await got(subject, CT_PAIR)
        subject.release(checkout)
        await subject.aclose()
        assert checkout.association.closed
        assert subject.empty

    run(scenario())
