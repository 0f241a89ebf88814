"""A member that is up and does not take an instance; and studies that are to stay whole."""

import asyncio
from pathlib import Path

from router.net.retry import Retry
from router.spool.index_types import DeliveryState, Filter
from router.spool.plan import Plan
from router.spool.record import Position, RouteMeta
from tests.forward.fakes import Answer
from tests.forward.test_failover import Pair, scenario
from tests.forward.test_with_index import entry
from tests.forward.virtual import wall

DEAD, READY = DeliveryState.DEAD, DeliveryState.READY


def state(pair: Pair, number: int) -> tuple[str, DeliveryState, int, str]:
    row = pair.real.instance(number)
    assert row is not None
    (one,) = row.deliveries
    return one.destination, one.state, one.attempts, one.reason


def failing(pair: Pair, name: str, status: int, *numbers: int) -> None:
    uids = {f"1.2.3.{number}" for number in numbers}
    pair.peers[name].answer = lambda uid: Answer(status if uid in uids else 0)


def test_what_is_refused_for_good_stays_where_nobody_said_otherwise(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0xA900, 2)
        pair.receive("a", "b", count=3)
        await asyncio.sleep(30)
        assert pair.where() == {"a": 2}
        assert state(pair, 2)[:2] == ("a", DEAD)

    scenario(tmp_path, steps)


def test_what_one_refuses_for_good_the_next_may_have(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0xA900, 2)
        pair.receive("a", "b", count=3, on_refusal="next")
        await asyncio.sleep(5)
        assert pair.where() == {"a": 2, "b": 1}
        name, _, attempts, reason = state(pair, 2)
        assert (name, attempts) == ("b", 1)
        assert reason == "in place of a"
        pair.check()

    scenario(tmp_path, steps)


def test_it_is_dead_once_all_have_refused_it(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        for name in "abc":
            failing(pair, name, 0xC000, 1)
        pair.receive("a", "b", "c", on_refusal="next")
        await asyncio.sleep(30)
        assert state(pair, 1)[:2] == ("c", DEAD)
        assert [len(peer.asked) for peer in pair.peers.values()] == [1, 1, 1]
        assert pair.real.account(audit=True).balanced

    scenario(tmp_path, steps)


def test_it_is_dead_at_once_where_the_other_has_it_by_another_rule(tmp_path: Path) -> None:
    """Regression: it waited a day for a member that could not have it."""

    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0xA900, 1)
        plan = Plan("failover", ("a", "b"), on_refusal="next").to_text()
        ref, meta = entry(1, wall())
        routes = (RouteMeta("a", "all", 0, plan), RouteMeta("b", "copy", 0))
        pair.real.add(
            [(ref, meta._replace(routes=routes))],
            Position(1, 9000),
            suppress_duplicates=False,
            same_bytes=lambda one, two: False,
        )
        for name in "ab":
            pair.forwarder.notify(name)
        await asyncio.sleep(10)
        row = pair.real.instance(1)
        assert row is not None
        found = {one.destination: one.state for one in row.deliveries}
        assert found == {"a": DEAD, "b": DeliveryState.DELIVERED}

    scenario(tmp_path, steps)


def test_tried_again_by_an_operator_all_are_asked_once_more(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        for name in "abc":
            failing(pair, name, 0xC000, 1, 2)
        pair.receive("a", "b", "c", count=2, on_refusal="next")
        await asyncio.sleep(30)
        assert state(pair, 1)[:2] == state(pair, 2)[:2] == ("c", DEAD)
        failing(pair, "b", 0xC000, 1)
        assert pair.real.retry(Filter(state=DEAD), at=wall()).count == 2
        pair.forwarder.refresh()
        await asyncio.sleep(30)
        assert state(pair, 1)[1] is DEAD
        assert [peer.asked.count("1.2.3.1") for peer in pair.peers.values()] == [2, 2, 2]
        assert pair.where() == {"b": 1}, "which had refused it before"
        assert pair.real.account(audit=True).balanced

    scenario(tmp_path, steps)


def test_one_that_was_refused_waits_for_the_other_to_come_up(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0xA900, 1)
        pair.peers["b"].down()
        pair.receive("b")  # which finds out that it is down
        await asyncio.sleep(5)
        pair.receive("a", "b", on_refusal="next")
        failing(pair, "a", 0xA900, 2)
        await asyncio.sleep(5000)
        assert state(pair, 2)[:2] == ("a", READY)
        pair.up_again("b")
        await asyncio.sleep(310)
        assert pair.where() == {"b": 2}
        assert len(pair.peers["a"].asked) == 1
        pair.check()

    scenario(tmp_path, steps)


def test_where_the_other_never_comes_it_is_asked_again_after_a_day_and_then_dead(
    tmp_path: Path,
) -> None:
    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0xA900, 2)
        pair.peers["b"].down()
        pair.receive("b")
        pair.receive("a", "b", on_refusal="next")
        await asyncio.sleep(86_300)
        assert state(pair, 2)[:2] == ("a", READY)
        await asyncio.sleep(200)
        assert state(pair, 2)[:2] == ("a", DEAD)
        assert len(pair.peers["a"].asked) == 2

    scenario(tmp_path, steps)


def test_what_is_damaged_here_is_offered_to_nobody_else(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.spool.damaged.add(1)
        pair.receive("a", "b", on_refusal="next")
        await asyncio.sleep(30)
        assert state(pair, 1)[:2] == ("a", DEAD)

    scenario(tmp_path, steps)


def test_what_has_no_context_at_one_goes_to_the_next(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].accepts = lambda proposal: False
        pair.receive("a", "b", count=20, on_refusal="next")
        await asyncio.sleep(10)
        assert pair.where() == {"b": 20}
        pair.check()

    scenario(tmp_path, steps)


RETRY = Retry(first=2.0, factor=2.0, cap=300.0, jitter=0.0, max_attempts=50, give_way_after=60)


def test_once_its_wait_is_long_another_has_it(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0x0110, 2)
        pair.receive("a", "b", count=3)
        await asyncio.sleep(61)
        assert pair.where() == {"a": 2}
        # Waits of 2, 4, 8, 16, 32 and then 64 seconds.
        await asyncio.sleep(5)
        assert pair.where() == {"a": 2, "b": 1}
        assert pair.peers["a"].asked.count("1.2.3.2") == 6
        assert state(pair, 2) == ("b", DeliveryState.DELIVERED, 1, "in place of a")
        pair.check()

    scenario(tmp_path, steps, retry=RETRY)


def test_each_has_its_try_and_none_a_second_one_while_another_is_left(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        for name in "abc":
            failing(pair, name, 0x0110, 1)
        pair.receive("a", "b", "c")
        await asyncio.sleep(200)
        assert [len(peer.asked) for peer in pair.peers.values()] == [6, 6, 6]
        assert state(pair, 1)[0] == "c"
        await asyncio.sleep(14_000)
        assert state(pair, 1)[:2] == ("c", DEAD)
        assert [len(peer.asked) for peer in pair.peers.values()] == [6, 6, 50]

    scenario(tmp_path, steps, retry=RETRY)


def test_without_the_setting_it_stays(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0x0110, 1)
        pair.receive("a", "b")
        await asyncio.sleep(1000)
        assert state(pair, 1)[0] == "a"
        assert not pair.peers["b"].asked

    scenario(tmp_path, steps, retry=RETRY.model_copy(update={"give_way_after": None}))


# -- whole studies


def study(pair: Pair, uid: str, count: int, *members: str) -> None:
    """Instances of one study, for the first of the members."""
    plan = Plan("failover", members, keep="study").to_text()
    entries = []
    for _ in range(count):
        pair.number += 1
        ref, meta = entry(pair.number, wall())
        routes = (RouteMeta(members[0], "all", 0, plan),)
        entries.append((ref, meta._replace(study_instance_uid=uid, routes=routes)))
    added = pair.real.add(
        entries,
        Position(1, (pair.number + 1) * 1000),
        suppress_duplicates=True,
        same_bytes=lambda one, two: False,
    )
    for name, more in added.deliveries.items():
        pair.forwarder.notify(name, more)


def places(pair: Pair, uid: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in pair.real.instances(Filter(study=uid), 1000):
        for one in (pair.real.instance(row.ref.id) or row).deliveries:
            found[one.destination] = found.get(one.destination, 0) + 1
    return found


def test_a_study_is_finished_where_it_was_begun(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].latency = lambda uid: 0.05
        study(pair, "1.5.1", 100, "a", "b")
        await asyncio.sleep(1)
        pair.peers["a"].down()
        await asyncio.sleep(1)
        study(pair, "1.5.2", 10, "a", "b")
        study(pair, "1.5.1", 5, "a", "b")
        await asyncio.sleep(1000)
        assert 5 < len(pair.peers["a"].stored) < 30
        assert places(pair, "1.5.1") == {"a": 105}
        assert places(pair, "1.5.2") == {"b": 10}
        pair.up_again("a")
        await asyncio.sleep(310)
        study(pair, "1.5.2", 3, "a", "b")
        study(pair, "1.5.3", 3, "a", "b")
        await asyncio.sleep(30)
        assert places(pair, "1.5.1") == {"a": 105}
        assert places(pair, "1.5.2") == {"b": 13}, "what comes later follows"
        assert places(pair, "1.5.3") == {"a": 3}
        pair.check()

    scenario(tmp_path, steps)


def test_what_was_not_begun_elsewhere_goes_back(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.peers["b"].latency = lambda uid: 10.0
        study(pair, "1.5.1", 20, "a", "b")
        study(pair, "1.5.2", 300, "a", "b")
        study(pair, "1.5.3", 50, "a", "b")
        await asyncio.sleep(60)
        pair.up_again("a")
        await asyncio.sleep(5000)
        assert places(pair, "1.5.1") == {"b": 20}
        assert places(pair, "1.5.2") == {"b": 300}, "some of it was in hand"
        assert places(pair, "1.5.3") == {"a": 50}
        pair.check()

    scenario(tmp_path, steps)
