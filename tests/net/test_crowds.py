"""Many strangers at once: who waits, who makes room, what is kept for those known by name."""

import asyncio
import contextlib
import struct

import pytest

from router.net import acceptor, link, listener
from router.net.admission import Admission, Admitted, Load, Refusal, neighbourhood
from router.net.settings import LocalAE, NetworkSettings, Remote
from router.ul import (
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRQ,
    UserInformation,
    encode_pdu,
)
from router.ul.pdu import APPLICATION_CONTEXT_NAME
from tests.net.support import Gate, Runner, Wire, echo_rq, gate, request, store_rq

LIMIT = AAssociateRJ(result=2, source=3, reason=2)
STRANGER, NAMED = "10.9.9.9", "10.0.0.5"
NAMES = {"pacs": Remote(ae_title="PACS", addresses=(NAMED,))}


def decide(load: Load, source: str, **settings: object) -> Admitted | Refusal:
    network = NetworkSettings(**settings)  # type: ignore[arg-type]
    local = LocalAE(ae_title="ROUTER", listen="0.0.0.0:104", accept="any", max_associations=50)
    rq = AAssociateRQ("ROUTER", "PACS", (), UserInformation(), APPLICATION_CONTEXT_NAME)
    return Admission([local], NAMES, network).decide(local.listen, rq, source, load)


@pytest.mark.parametrize(
    ("load", "kind"),
    [
        (Load(89, {"ROUTER": 44}, {}, {STRANGER: 39}), ""),
        (Load(90, {}, {}), "limit_reserve"),
        (Load(0, {"ROUTER": 45}, {}), "limit_reserve"),
        (Load(0, {}, {}, {STRANGER: 40}), "limit_address"),
        (Load(0, {}, {}, {"10.9.9.8": 40}), ""),
        (Load(100, {}, {}), "limit"),
    ],
)
def test_the_last_places_are_for_those_with_a_name(load: Load, kind: str) -> None:
    verdict = decide(load, STRANGER, max_associations=100)
    if not kind:
        assert isinstance(verdict, Admitted)
        return
    assert isinstance(verdict, Refusal)
    assert (verdict.rejection, verdict.kind) == (LIMIT, kind)
    if kind != "limit":
        assert "remotes" in verdict.text
        assert decide(load, NAMED, max_associations=100) == Admitted(verdict_local(), "pacs")


def verdict_local() -> LocalAE:
    return LocalAE(ae_title="ROUTER", listen="0.0.0.0:104", accept="any", max_associations=50)


def test_the_limit_of_an_address_follows_that_of_all() -> None:
    assert NetworkSettings().address_limit == 200
    assert NetworkSettings(max_associations=10).address_limit == 32
    assert NetworkSettings(max_associations=10, max_per_address=3).address_limit == 3
    assert NetworkSettings(reserve=0).open_to_all(7) == 7
    assert NetworkSettings().open_to_all(1) == 1


async def gone(wire: Wire) -> None:
    await wire.ended()
    await wire.close()


def test_the_oldest_of_an_address_makes_room(run: Runner) -> None:
    """Regression: silent connections took every place, and proper peers were turned away."""

    async def scenario() -> None:
        async with gate(max_waiting_per_address=4) as subject:
            crowd = [await subject.wire() for _ in range(4)]
            await subject.listeners.until_open(4)
            wire = await subject.associated()
            await gone(crowd.pop(0))
            assert subject.observer.rejected == {"waiting_address": 1}
            # With an association it waits no more: the others have its place again.
            crowd.append(await subject.wire())
            await subject.listeners.until_open(5)
            assert subject.observer.rejected == {"waiting_address": 1}
            await wire.send(echo_rq())
            assert (await wire.answer()).status == 0
            await wire.release()
            for one in crowd:
                await one.close()
            await subject.quiet()

    run(scenario)
    [line] = run.said("too many wait for an association of its address")
    assert line["kind"] == "waiting_address"


def test_the_oldest_of_all_makes_room(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(max_waiting=8) as subject:
            crowd = [await subject.wire() for _ in range(10)]
            for one in crowd[:2]:
                await gone(one)
            await subject.listeners.until_open(8)
            assert subject.observer.rejected == {"waiting": 2}
            for one in crowd[2:]:
                await one.close()
            await subject.quiet()
            assert subject.observer.unused == {"silent": 8}

    run(scenario)


def test_a_crowd_of_one_address_pushed_out_those_of_others(run: Runner) -> None:
    """Regression: the oldest of all went, so that who opened most lost least."""

    async def scenario() -> None:
        async with gate(max_waiting=8) as subject:
            slow = await subject.wire()
            await subject.listeners.until_open(1)
            [association] = subject.listeners._waiting
            subject.listeners._waits_no_more(association)
            association.peer_address = "10.9.9.8"  # from elsewhere, and before all others
            subject.listeners.connected(association)
            crowd = [await subject.wire() for _ in range(20)]
            await gone(crowd[0])
            await slow.send(request())
            assert isinstance(await slow.pdu(), AAssociateAC)
            for one in (slow, *crowd[1:]):
                await one.close()
            await subject.quiet()
            assert not subject.listeners._waiting_of

    run(scenario)


def test_every_address_of_an_ipv6_network_had_a_count_of_its_own() -> None:
    """Regression: a stranger has 2**64 of them."""
    one, other = neighbourhood("2001:db8:1:2::1"), neighbourhood("2001:db8:1:2:a:b:c:d")
    assert one == other == "2001:db8:1:2::/64"
    assert neighbourhood("2001:db8:1:3::1") != one
    assert neighbourhood("10.0.0.1") == "10.0.0.1"
    assert neighbourhood("fe80::1") == "fe80::1"
    full = Load(0, {}, {}, {one: 40})
    verdict = decide(full, "2001:db8:1:2::77", max_associations=100)
    assert isinstance(verdict, Refusal)
    assert verdict.kind == "limit_address"


def test_who_was_refused_and_stays_is_dropped_without_being_counted_twice(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(max_waiting_per_address=4) as subject:
            crowd = [await subject.wire() for _ in range(4)]
            for one in crowd:
                await one.send(request(called_ae_title="NOBODY"))
                assert await one.pdu() == AAssociateRJ(1, 1, 7)
            late = await subject.associated()
            await gone(crowd[0])
            assert subject.observer.rejected == {"called_ae": 4}
            for one in (*crowd[1:], late):
                await one.close()
            await subject.quiet()

    run(scenario)


def test_long_requests_that_never_end_share_a_bounded_memory(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = encode_pdu(request())
    monkeypatch.setattr(listener, "REQUEST_MEMORY", 2 * len(long))

    async def scenario() -> None:
        async with gate() as subject:
            crowd = [await subject.wire() for _ in range(4)]
            for number, one in enumerate(crowd, 1):
                await one.send(long[:-1])
                while sum(subject.observer.rejected.values()) < number - 2 or len(
                    subject.listeners._requests
                ) != min(number, 2):
                    await asyncio.sleep(0)
            await gone(crowd[0])
            await gone(crowd[1])
            assert subject.observer.rejected == {"request_memory": 2}
            # Those that come to their end are answered.
            await crowd[3].send(long[-1:])
            assert await crowd[3].pdu() is not None
            await crowd[3].send(AReleaseRQ())
            for one in crowd[2:]:
                await one.close()
            await subject.quiet()
            assert subject.listeners._requests_size == 0
            assert not subject.listeners._waiting_of

    run(scenario)


def test_a_request_in_part_kept_its_memory_until_the_collector_came(run: Runner) -> None:
    """Regression: a megabyte of each connection that was dropped, and thousands of them."""

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            await wire.send(encode_pdu(request())[:-1])
            while not subject.listeners._requests:
                await asyncio.sleep(0)
            [association] = subject.listeners._requests
            assert len(association.connection._buffer) > 100
            await wire.close()
            await subject.quiet()
            assert not association.connection._buffer

    run(scenario)


@pytest.mark.parametrize(
    ("first", "reason"),
    [(b"", "silent"), (b"\x01", "incomplete"), (encode_pdu(request())[:-1], "incomplete")],
)
def test_who_closes_before_it_asked_is_counted(run: Runner, first: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            if first:
                await wire.send(first)
                while not [a for a in subject.listeners._connections if a.received]:
                    await asyncio.sleep(0)
            await wire.close()
            await subject.quiet()
            assert subject.observer.unused == {reason: 1}
            assert not subject.observer.rejected

    run(scenario)
    assert len(run.said("before its association request was whole")) == (reason == "incomplete")


def test_proposals_of_a_long_request_are_not_kept(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_LONG_REQUEST", 100)

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            [association] = subject.listeners.associations
            kept = association.connection.request
            assert kept is not None
            assert kept.presentation_contexts == ()
            assert association.maximum_length == request().user_information.maximum_length
            await wire.send(store_rq())
            assert (await wire.answer()).status == 0
            await wire.release()
            await subject.quiet()

    run(scenario)


def test_a_byte_now_and_then_of_a_data_set_held_its_place_for_ever(run: Runner) -> None:
    """Regression: every byte counted as a sign of life."""

    async def scenario() -> None:
        async with gate(dimse_timeout=0.1, artim_timeout=0.1, min_rate=10_000) as subject:
            wire = await subject.associated()
            data = store_rq(bytes(5000), maximum=6000)
            await wire.send(data[:500])
            for at in range(500, len(data)):
                if wire.reader.at_eof() or subject.observer.cut:
                    break
                await wire.send(data[at : at + 1])
                await asyncio.sleep(0.01)
            assert subject.observer.cut == {"slow": 1}
            await wire.aborted()
            await wire.close()
            await subject.quiet()

    run(scenario)
    [line] = run.said("network.min_rate")
    assert line["event"] == "association aborted by us"


@pytest.mark.parametrize("by", [2.0, 0.0])
def test_a_peer_was_charged_with_the_time_that_we_were_frozen(run: Runner, by: float) -> None:
    """Regression: after SIGSTOP, or a pause of the virtual machine, all were cut off."""

    async def scenario() -> None:
        async with gate(dimse_timeout=1000.0) as subject:
            wire = await subject.associated()
            await wire.send(store_rq(bytes(5000), maximum=6000)[:500])
            while not subject.listeners.associations[0].under_way():
                await asyncio.sleep(0)
            [association] = subject.listeners.associations
            association._heard -= 2000.0
            association._look_at = asyncio.get_running_loop().time() - by
            assert association._watch is not None
            association._watch.cancel()
            association._look()
            assert association.connection.can_abort is bool(by)
            await wire.close()
            await subject.quiet()

    run(scenario)


@pytest.mark.parametrize("by", [2.0, 0.0])
def test_artim_was_charged_with_the_time_that_we_were_frozen(run: Runner, by: float) -> None:
    """Regression: who asked while we did not run was closed before its request was read."""

    async def scenario() -> None:
        async with gate(artim_timeout=1000.0) as subject:
            wire = await subject.wire()
            while not subject.listeners._waiting:
                await asyncio.sleep(0)
            [association] = subject.listeners._waiting
            expired = association._artim
            assert expired is not None
            expired.cancel()
            association.connection._deadline = asyncio.get_running_loop().time() - by
            association._artim_at = association.connection.deadline
            association._artim_expired()
            assert association.connection.want_close is not bool(by)
            if by:
                await wire.associate()
                await wire.release()
            await wire.close()
            await subject.quiet()

    run(scenario)


def test_a_slow_peer_that_is_fast_enough_is_let_be(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(dimse_timeout=0.1, min_rate=1000) as subject:
            wire = await subject.associated()
            data = store_rq(bytes(5000), maximum=6000)
            for at in range(0, len(data), 100):
                await wire.send(data[at : at + 100])
                await asyncio.sleep(0.01)
            assert (await wire.answer()).status == 0
            await wire.release()
            await subject.quiet()
            assert not subject.observer.cut

    run(scenario)


def test_who_goes_on_after_it_was_cut_off_is_reset(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: what it still sent was received, at its speed, until ARTIM expired."""
    monkeypatch.setattr(link, "_STILL_TALKS", 100_000)

    async def scenario() -> None:
        async with gate(artim_timeout=30.0) as subject:
            wire = await subject.wire()
            ended = False
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    await wire.send(b"\xc3" * 65536)
                ended = True
            assert not ended, "all of it was received"
            await wire.close()
            await subject.quiet()
            assert subject.observer.rejected == {"protocol": 1}

    run(scenario)


@pytest.mark.parametrize(("count", "taken"), [(128, True), (129, False)])
def test_thousands_of_messages_in_one_piece_held_up_all_others(
    run: Runner, count: int, taken: bool
) -> None:
    """Regression: half a megabyte of C-ECHO-RQ took the loop for a tenth of a second."""

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            await wire.send(b"".join(echo_rq(n) for n in range(1, count + 1)))
            if taken:
                for _ in range(count):
                    assert (await wire.answer()).status == 0
                await wire.release()
            else:
                await wire.aborted()
                await wire.close()
                assert subject.observer.cut == {"protocol": 1}
            await subject.quiet()

    run(scenario)


def user_items(count: int) -> bytes:
    """A request with so many sub-items of user information."""
    whole = encode_pdu(request(user_information=UserInformation(maximum_length=16384)))
    sub = struct.pack(">BxHH", 0x56, 2, 0) * count
    at = whole.rindex(b"\x50\x00\x00\x08\x51")
    items = whole[at + 4 :] + sub
    body = whole[6:at] + struct.pack(">BxH", 0x50, len(items)) + items
    return whole[:2] + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(("count", "taken"), [(500, True), (1100, False)])
def test_sub_items_of_user_information_held_up_all_others(
    run: Runner, count: int, taken: bool
) -> None:
    """Regression: 48 KB of them took 25 ms to read."""

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            await wire.send(user_items(count))
            if taken:
                assert await wire.pdu() is not None
            else:
                await wire.ended()
                assert subject.observer.rejected == {"protocol": 1}
            await wire.close()
            await subject.quiet()

    run(scenario)


async def associations_of(subject: Gate, count: int) -> list[Wire]:
    return [await subject.associated() for _ in range(count)]


def test_associations_of_an_address_are_given_back(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(max_per_address=2) as subject:
            first, second = await associations_of(subject, 2)
            third = await subject.wire()
            await third.send(request())
            assert await third.pdu() == LIMIT
            await third.close()
            await first.release()
            await subject.listeners.until_open(1)
            [fourth] = await associations_of(subject, 1)
            for wire in (second, fourth):
                await wire.release()
            await subject.quiet()
            assert subject.observer.rejected == {"limit_address": 1}
            assert not subject.listeners._by_address

    run(scenario)
