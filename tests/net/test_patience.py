"""One message of several that is never answered, while the association goes on with the others."""

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from router.forward.throttle import Bandwidth, Metered, Speed, Throttle
from router.net.answers import Request
from router.net.connector import connect
from router.net.errors import AnotherUnanswered, AssociationError, AssociationTimeout, in_seconds
from router.net.patience import Patience
from router.net.requestor import Requestor
from router.net.target import Target
from router.spool.index_types import DeliveryState
from tests.forward.fakes import CT_PAIR, FakeReader, House, waiting
from tests.forward.virtual import run
from tests.net.acceptors import accept_any, message, scripted, store_rsp
from tests.net.support import Wire
from tests.net.test_pace import KILOBIT, PatientLoop

TIMEOUT, WINDOW = 60.0, 4
NEVER = None


def acceptor(
    delays: Callable[[int], float | None], *, serial: bool = False, lengths: Callable[[int], int]
) -> Callable[[Wire], "asyncio.Future[None]"]:
    """Answers message n after ``delays(n)`` seconds, never where that is None; one that is
    ``serial`` begins with a message when it is done with the one before."""

    async def handler(wire: Wire) -> None:
        await accept_any(wire, asynchronous_operations=(WINDOW, 1))
        tasks: list[asyncio.Task[None]] = []

        async def answer(number: int, before: asyncio.Task[None] | None) -> None:
            if serial and before is not None:
                await before
            seconds = delays(number)
            if seconds is not NEVER:
                await asyncio.sleep(seconds)
                await wire.send(store_rsp(number, context_id=1))

        async def read() -> None:
            for number in count(1):
                assert len(await message(wire)) == lengths(number)
                before = tasks[-1] if tasks else None
                tasks.append(asyncio.ensure_future(answer(number, before)))

        reading = asyncio.ensure_future(read())
        await asyncio.wait([reading])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not isinstance(error := reading.exception(), AssertionError):
            raise AssertionError("it read on") from error

    return handler  # type: ignore[return-value]


def target(port: int) -> Target:
    return Target(
        "pacs",
        "PACS",
        "127.0.0.1",
        port,
        "ROUTER",
        dimse_timeout=TIMEOUT,
        asynchronous_operations=WINDOW,
    )


class Traffic:
    """Lanes that store one instance after the other; ``ends`` has when each ended, and how."""

    def __init__(self, association: Requestor, length: int = 3, most: int = 300) -> None:
        self.ends: dict[int, tuple[float, AssociationError | int]] = {}
        self.sent: dict[int, float] = {}
        self._association = association
        self._length = length
        self._numbers = iter(range(1, most + 1))
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        await asyncio.gather(*(self._lane() for _ in range(self._association.window)))

    async def _lane(self) -> None:
        context_id = self._association.accepted[CT_PAIR]
        for number in self._numbers:
            item = waiting(number, length=self._length)
            try:
                result = await self._association.store(
                    context_id,
                    item.sop_class_uid,
                    item.sop_instance_uid,
                    FakeReader(item.ref),
                    on_sent=lambda n=number: self.sent.update({n: self._loop.time()}),
                )
            except AssociationError as error:
                self.ends[number] = self._loop.time(), error
                return
            self.ends[number] = self._loop.time(), result.status


@pytest.mark.parametrize("bandwidth", [None, 8 * KILOBIT])
def test_an_answer_that_never_came_was_waited_for_as_long_as_others_came(
    bandwidth: float | None,
) -> None:
    """Regression: each answer to another message was a sign of life for all of them, and so was
    each piece that we wrote."""
    length = 3 if bandwidth is None else 20_000

    async def scenario() -> None:
        handler = acceptor(lambda n: NEVER if n == 3 else 1.0, lengths=lambda n: length)
        async with scripted(handler) as port:
            association = await connect(target(port), [CT_PAIR])
            assert association.window == WINDOW
            if bandwidth is not None:
                throttle = Throttle(Speed(Bandwidth(otherwise=bandwidth)), Metered(Bandwidth()))
                throttle.look(0.0)
                association.pace = throttle
            traffic = Traffic(association, length)
            await traffic.run()
            at, error = traffic.ends[3]
            assert type(error) is AssociationTimeout
            assert "while other messages went on" in str(error)
            assert TIMEOUT <= at - traffic.sent[3] <= TIMEOUT * 1.6
            others = [end for n, (_, end) in traffic.ends.items() if n != 3]
            assert others.count(0) >= 4, "there was traffic"
            fell = [type(end) for end in others if end != 0]
            assert fell
            assert set(fell) == {AnotherUnanswered}
            assert association.closed
            association.close()

    run(scenario(), PatientLoop)


def test_one_after_the_other_takes_longer_than_each_of_them() -> None:
    """A peer that works on one message at a time answers the last of a window late, by right."""

    async def scenario() -> None:
        slow = acceptor(lambda n: 0.8 * TIMEOUT, serial=True, lengths=lambda n: 3)
        async with scripted(slow) as port:
            association = await connect(target(port), [CT_PAIR])
            traffic = Traffic(association, most=20)
            await traffic.run()
            assert [end for _, end in traffic.ends.values()] == [0] * 20
            waited = [at - traffic.sent[n] for n, (at, _) in traffic.ends.items()]
            assert max(waited) > 3 * TIMEOUT
            association.abort()
            association.close()

    run(scenario(), PatientLoop)


def test_only_the_one_that_was_never_answered_is_charged() -> None:
    async def scenario() -> None:
        opened: list[Requestor] = []
        handler = acceptor(
            lambda n: NEVER if n == 3 and len(opened) == 1 else 1.0, lengths=lambda n: 1000
        )
        async with scripted(handler) as port:
            house = House("pacs", associations=1, asynchronous_operations=WINDOW)

            async def call(proposals: list[tuple[str, str]]) -> Requestor:
                opened.append(await connect(target(port), proposals))
                return opened[-1]

            house.configs["pacs"] = house.config(
                "pacs", associations=1, asynchronous_operations=WINDOW, connect=call
            )
            house.start()
            house.arrive("pacs", *(waiting(n) for n in range(1, 1001)))
            await house.index.until(lambda: bool(house.counts.associations_failed))
            await house.index.until_closed("pacs")
            assert len(opened) == 2, "the association of a time-out carries nothing more"
            assert house.counts.associations_failed == [("pacs", "timeout")]
            rows = house.index.rows["pacs"].values()
            assert {row.state for row in rows} == {DeliveryState.DELIVERED}
            tried = {row.item.ref.id: len(row.history) for row in rows if len(row.history) > 1}
            assert tried == {3: 2}
            first = house.index.rows["pacs"][3].history[0]
            assert first.attempted
            assert "did not answer for" in first.reason
            assert not house.counts.availability, "one message is no dead peer"
            await house.stop()

    run(scenario(), PatientLoop)


# -- the deadline by itself ------------------------------------------------------------------------


class Sent:
    def __init__(self) -> None:
        self.waiting: dict[int, Request] = {}
        self.patience = Patience(self.waiting, TIMEOUT)
        self.arrived = 10**9

    def send(self, number: int, at: float, ends_at: int = 0) -> None:
        request = Request(1, "", None)  # type: ignore[arg-type]
        request.out(at, ends_at)
        self.waiting[number] = request

    def answer(self, number: int, at: float) -> None:
        self.patience.answered(number, at)
        del self.waiting[number]

    def late(self, now: float) -> tuple[int, float] | None:
        return self.patience.late(now, lambda: self.arrived)


def test_the_time_of_a_message_runs_from_the_answer_to_the_one_ahead_of_it() -> None:
    sent = Sent()
    assert sent.late(1e9) is None
    for number in (1, 2, 3):
        sent.send(number, 0.0)
    assert sent.late(59.9) is None
    assert sent.late(60.0) == (1, 60.0)
    sent.answer(1, 50.0)
    assert sent.late(109.9) is None
    sent.answer(3, 100.0)
    assert sent.late(110.0) == (2, 60.0), "what was answered out of its turn excuses nothing"
    sent.patience.answered(2, 105.0)  # of several: it goes on
    assert sent.late(164.9) is None
    assert sent.late(165.0) == (2, 60.0)


def test_a_message_that_is_not_out_or_not_over_there_is_not_late() -> None:
    sent = Sent()
    sent.waiting[1] = Request(1, "", None)  # type: ignore[arg-type]
    assert sent.late(1000.0) is None
    sent.waiting[1].out(1000.0, 5000)
    sent.arrived = 4999
    assert sent.late(2000.0) is None
    sent.arrived = 5000
    assert sent.late(2059.9) is None
    assert sent.late(2060.0) == (1, 60.0)
    sent.patience.excuse(2100.0)
    assert sent.late(2159.9) is None
    assert sent.late(2160.0) == (1, 60.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (0.104, "0.1 s"), (1.5, "1.5 s"), (61.4, "61 s")]
)
def test_a_time_out_under_a_second_was_no_second_at_all(seconds: float, text: str) -> None:
    assert in_seconds(seconds) == text
