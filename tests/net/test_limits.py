"""What one peer may do to us: bounds on what it has under way, on its names and on its PDUs."""

import asyncio
from typing import Any

import pytest

from router.net.acceptor import AcceptedAssociation
from router.net.admission import is_plausible_uid
from router.net.settings import Remote
from router.ul import (
    PDV,
    AAssociateAC,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    PresentationContextRQ,
    encode_pdu,
)
from tests.net.support import (
    CT,
    CT_CONTEXT,
    EXPLICIT,
    IMPLICIT,
    Gate,
    Runner,
    Shelved,
    Wire,
    echo_rq,
    gate,
    request,
    store_rq,
)

LONG = "1.2.840.10008.5." + "1" * 49


def only(subject: Gate) -> AcceptedAssociation:
    [association] = subject.listeners.associations
    return association


def test_requests_outstanding_on_one_association_had_no_bound(run: Runner) -> None:
    """Regression: a peer that waited for no answer held memory for all that it sent."""
    size, count = 256 * 1024, 60

    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda _: None
            wire = await subject.associated()
            requests = b"".join(
                store_rq(bytes(size), n, f"1.2.{n}", 128 * 1024) for n in range(1, count + 1)
            )
            sending = asyncio.create_task(wire.send(requests))
            await subject.shelf.until(lambda s: len(s.begun) > 16)
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(subject.shelf.begun) <= 20
            subject.shelf.policy = Shelved.answer
            for shelved in list(subject.shelf.ended):
                shelved.answer()
            answers = {(await wire.answer()).message_id_being_responded_to for _ in range(count)}
            assert answers == set(range(1, count + 1))
            await sending
            await wire.release()
            await subject.quiet()

    run(scenario)


def test_an_association_that_is_aborted_while_it_is_not_heard_ends(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda _: None
            wire = await subject.associated()
            await wire.send(*(store_rq(b"abc", n, f"1.2.{n}") for n in range(1, 30)))
            await subject.shelf.until(lambda s: len(s.begun) > 16)
            only(subject).abort()
            for shelved in list(subject.shelf.ended):
                shelved.answer()
            await wire.aborted()
            await wire.close()
            await subject.quiet()

    run(scenario)


@pytest.mark.parametrize(
    ("abstract", "transfers", "result", "chosen"),
    [
        (LONG, (EXPLICIT,), 3, EXPLICIT),
        (CT + "\x7f", (EXPLICIT,), 3, EXPLICIT),
        (CT, (LONG,), 4, LONG),
        (CT, (LONG, EXPLICIT), 0, EXPLICIT),
        (CT, ("1.2.840.Ä", IMPLICIT), 0, IMPLICIT),
        (CT, ("1.2.3.private-A",), 0, "1.2.3.private-A"),
    ],
)
def test_a_uid_that_no_peer_can_read_was_accepted(
    run: Runner, abstract: str, transfers: tuple[str, ...], result: int, chosen: str
) -> None:
    """Regression: it was acknowledged, then proposed to destinations that drop a request for it."""

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            contexts = (PresentationContextRQ(1, abstract, transfers),)
            await wire.send(_raw(request(presentation_contexts=contexts)))
            answer = await wire.pdu()
            assert isinstance(answer, AAssociateAC)
            [context] = answer.presentation_contexts
            assert (context.result, context.transfer_syntax) == (result, chosen)
            await wire.release()

    run(scenario)


def _raw(rq: Any) -> bytes:
    return encode_pdu(rq)


def test_which_uids_are_plausible() -> None:
    assert is_plausible_uid(CT)
    assert is_plausible_uid("1" * 64)
    assert not is_plausible_uid("1" * 65)
    assert not is_plausible_uid("")
    assert not is_plausible_uid("1.2 3")
    assert not is_plausible_uid("1.2.é")


@pytest.mark.parametrize(("over", "taken"), [(0, True), (12, True), (13, False)])
def test_a_peer_that_forgets_the_headers_in_its_longest_pdu(
    run: Runner, over: int, taken: bool
) -> None:
    """Regression: twelve bytes more than announced ended the association."""

    async def scenario() -> None:
        async with gate(max_pdu=4096) as subject:
            wire = await subject.wire()
            assert (await wire.associate()).user_information.maximum_length == 4096
            head, *_ = store_rq_parts(4096 + over - 6)
            await wire.send(*head)
            if taken:
                assert (await wire.answer()).status == 0
                await wire.release()
            else:
                await wire.aborted()
                await wire.close()
            await subject.quiet()

    run(scenario)


def store_rq_parts(size: int) -> tuple[list[bytes], int]:
    """A C-STORE-RQ whose data set is one PDV of `size` bytes in a PDU of its own."""
    whole = store_rq(b"")
    first = 6 + int.from_bytes(whole[2:6])
    return [whole[:first], encode_pdu(PDataTF((PDV(CT_CONTEXT, 2, bytes(size)),)))], size


@pytest.mark.parametrize(
    ("rest", "word"),
    [(b"ROUTER\0junk\0\0\0\0\0", "ROUTER"), (b"WRONG\0\0\0\0\0\0\0\0\0\0\0", "WRONG")],
)
def test_raw_ae_titles_were_never_logged(run: Runner, rest: bytes, word: str) -> None:
    async def scenario() -> None:
        remotes = {"ct": Remote(ae_title="OTHER")}
        async with gate(remotes=remotes, accept=("ct",)) as subject:
            wire = await subject.wire()
            rq = encode_pdu(request())
            await wire.send(rq[:10] + rest + rq[26:])
            assert isinstance(await wire.pdu(), AAssociateRJ)
            await wire.close()

    run(scenario)
    [line] = run.said("association refused")
    assert line["raw_called"] == repr(rest)
    assert word in line["why"]
    assert "raw_calling" not in line


@pytest.mark.parametrize("release", [True, False])
def test_an_answer_to_a_peer_that_had_said_its_last_word_was_lost(
    run: Runner, release: bool
) -> None:
    """Regression: at the peer's end of stream the connection was dropped with what it was owed."""

    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda _: None
            wire = await subject.associated()
            await wire.send(store_rq(), *([AReleaseRQ()] if release else []))
            await subject.shelf.until(lambda s: bool(s.ended))
            association = only(subject)
            wire.writer.write_eof()
            while not association.half_closed:
                await asyncio.sleep(0)
            subject.shelf.ended[0].answer()
            assert (await wire.answer()).status == 0
            if release:
                assert isinstance(await wire.pdu(), AReleaseRP)
            assert await wire.pdu() is None
            await wire.close()
            await subject.quiet()

    run(scenario)


def test_a_message_cut_off_by_the_end_of_the_stream_is_waited_for_no_longer(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda _: None
            wire = await subject.associated()
            await wire.send(store_rq(), store_rq(bytes(5000), 2, "1.2.4", 1000)[:3000])
            await subject.shelf.until(lambda s: len(s.begun) == 2)
            association = only(subject)
            wire.writer.write_eof()
            while not association.half_closed:
                await asyncio.sleep(0)
            assert [one.fate for one in subject.shelf.begun] == ["ended", "abandoned"]
            subject.shelf.ended[0].answer()
            assert (await wire.answer()).message_id_being_responded_to == 1
            assert await wire.pdu() is None
            await wire.close()
            await subject.quiet()

    run(scenario)


async def took(stop: Any) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stop
    return loop.time() - began


def test_a_peer_that_does_not_close_after_our_abort_used_up_the_time_to_stop(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            idle = await subject.associated()
            gone = await subject.associated()
            await gone.send(AReleaseRQ())
            assert isinstance(await gone.pdu(), AReleaseRP)
            assert await took(subject.listeners.stop(20.0)) < 5.0
            await idle.aborted()
            for wire in (idle, gone):
                await wire.close()

    run(scenario)
    assert not run.said("associations cut off")


def test_a_message_answered_without_a_service_keeps_nobody_at_stop(run: Runner) -> None:
    """Regression: what ended with the answer itself was not looked at again."""

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            data = store_rq(bytes(5000), maximum=1000)
            await wire.send(data[:3000])
            await subject.shelf.until(lambda s: bool(s.begun))
            stopping = asyncio.create_task(took(subject.listeners.stop(20.0)))
            await asyncio.sleep(0)
            await wire.send(data[3000:])
            assert (await wire.answer()).status == 0
            await wire.aborted()
            await wire.close()
            assert await stopping < 5.0

    run(scenario)


def test_a_connection_accepted_while_stopping_is_turned_away(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda _: None
            wire = await subject.associated()
            await wire.send(store_rq())
            await subject.shelf.until(lambda s: bool(s.ended))
            stopping = asyncio.create_task(subject.listeners.stop(20.0))
            await asyncio.sleep(0)
            late = subject.listeners._connect("127.0.0.1:0")
            assert not isinstance(late, AcceptedAssociation)
            with pytest.raises(OSError, match="stopped"):
                await subject.listeners.open(["127.0.0.2:0"])
            subject.shelf.ended[0].answer()
            await wire.answer()
            await wire.aborted()
            await wire.close()
            await stopping

    run(scenario)


async def _echo(wire: Wire) -> None:
    await wire.send(echo_rq())
    assert (await wire.answer()).status == 0


def test_an_address_that_this_gateway_itself_holds_is_told_so(run: Runner) -> None:
    """Regression: "another process" was blamed for a port that only a reload had to give up."""

    async def scenario() -> None:
        async with gate() as subject:
            await subject.listeners.open(["0.0.0.0:0"])
            port = subject.listeners.listening["0.0.0.0:0"]
            server = subject.listeners._servers.pop("0.0.0.0:0")
            subject.listeners._servers[f"0.0.0.0:{port}"] = server
            with pytest.raises(OSError, match="this gateway itself listens on"):
                await subject.listeners.open([f"127.0.0.1:{port}"])
            await _echo_and_release(subject)

    run(scenario)


async def _echo_and_release(subject: Gate) -> None:
    wire = await subject.associated()
    await _echo(wire)
    await wire.release()
