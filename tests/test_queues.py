"""What of a configuration concerns waiting, and asking archives."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from router.config.load import loads
from router.forward.errands import Errands
from router.forward.places import Places
from router.forward.ports import NotAnswered
from router.net.requestor import Requestor
from router.observe.counters import Counters
from router.queues import Archives, Aside, members_of, windows_of
from router.spool.index_types import Gate
from router.spool.plan import Plan
from tests.net.acceptors import accept_any, scripted, to_the_end
from tests.net.support import Wire

CONFIG = """
timezone: Europe/Stockholm
local: [{ae_title: ROUTER, listen: "127.0.0.1:0", accept: any}]
remotes:
  a: {ae_title: A, host: 127.0.0.1, port: PORT, dimse_timeout: 200ms}
  b: {ae_title: B, host: 127.0.0.1}
  c: {ae_title: C, host: 127.0.0.1}
  d: {ae_title: D, host: 127.0.0.1}
  ct: {ae_title: CT}
schedules:
  night: {open: "18:00-07:00"}
  tokyo: {timezone: Asia/Tokyo, open: ["mon-fri 18:00-07:00", "sat 00:00-24:00"]}
rules:
  - {name: one, to: [a, d], send: {schedule: night}}
  - {name: two, to: [d, {failover: [b, c]}], send: {schedule: tokyo}}
"""
GATE = Gate(1, "d", "study", "1.2", Plan(after="study-complete"), "1.2", 3, 0, 0.0, 0.0, 0)


async def at_once(_: str, connect: Callable[[], Awaitable[Requestor]]) -> Requestor:
    return await connect()


def archives(port: int, aside: Aside = at_once) -> Archives:
    asking = Archives(Counters(), aside)
    asking.configure(loads(CONFIG.replace("PORT", str(port)), "c.yaml", {}).config)
    return asking


def test_only_those_that_stand_in_for_another_are_members() -> None:
    loaded = loads(CONFIG.replace("PORT", "104"), "c.yaml", {})
    assert members_of(loaded.rules) == {"b", "c"}


def test_a_schedule_without_a_time_zone_has_that_of_the_file() -> None:
    windows = windows_of(loads(CONFIG.replace("PORT", "104"), "c.yaml", {}).config)
    assert windows["night"].zone == "Europe/Stockholm"
    assert windows["tokyo"].zone == "Asia/Tokyo"
    assert len(windows["tokyo"].spans) == 2


@pytest.mark.parametrize("name", ["gone", "ct"])
def test_an_archive_that_nobody_can_call_is_no_answer(name: str) -> None:
    with pytest.raises(NotAnswered, match=f"{name} is not configured, or has no host"):
        asyncio.run(archives(104).count(name, GATE))


async def refuse_all(wire: Wire) -> None:
    await wire.pdu()


async def silent(wire: Wire) -> None:
    await accept_any(wire)
    await to_the_end(wire)


@pytest.mark.parametrize(
    ("behaviour", "text"), [(refuse_all, "closed the connection"), (silent, "was silent for")]
)
def test_one_that_does_not_answer_is_none_and_leaves_nothing_open(
    behaviour: object, text: str
) -> None:
    async def main() -> None:
        async with scripted(behaviour) as port:  # type: ignore[arg-type]
            with pytest.raises(NotAnswered, match=text):
                await archives(port).count("a", GATE)

    asyncio.run(main())


def test_a_question_waits_for_a_place_among_all_and_gives_it_back() -> None:
    async def main() -> None:
        places = Places(1)
        places.join("a", lambda: None)
        places.holds("a", 1)  # it is being sent to
        async with scripted(silent) as port:
            asking = asyncio.ensure_future(archives(port, Errands(places).open).count("a", GATE))
            while places.allowed("a"):
                await asyncio.sleep(0)
            assert not asking.done()
            places.holds("a", 0)  # sending made room for it
            with pytest.raises(NotAnswered, match="was silent for"):
                await asking
            while not places.allowed("a"):
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 20))
