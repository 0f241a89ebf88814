"""Pauses, schedules, limits, faults and reloads in any order: at the end nothing is left."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

import pytest

from router.forward.permit import Hours
from router.forward.ports import DestinationConfig
from router.forward.regime import Outgoing
from router.forward.throttle import Bandwidth, Speed
from router.net.errors import AssociationRejected
from router.net.retry import Retry
from router.spool.index_types import DeliveryState
from router.spool.plan import Mode
from rules.window import parse_windows
from tests.forward.fakes import Answer
from tests.forward.test_failover import Pair, scenario
from tests.forward.test_giving_way import study
from tests.forward.virtual import VirtualLoop

NAMES = ("a", "b", "c")
MODES: tuple[Mode, ...] = ("failover", "balance", "first_available")
WINDOWS = parse_windows(["every 2h for 1h", "mon 00:00-24:00"], "Europe/Stockholm")
ALL_DAY = Outgoing()
SETTLED = {DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.DUPLICATE}
_PLAIN = Retry(first=2.0, factor=2.0, cap=300.0, jitter=0.25, max_attempts=100_000)


class Weather:
    """One random step at a time; `calm` ends all of it."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.pair = pair
        self.chance = Random(seed)
        self.configs: dict[str, DestinationConfig] = dict(pair.configs)
        self.outgoing = ALL_DAY

    def step(self) -> None:
        name = self.chance.choice(NAMES)
        kind = self.chance.randrange(11)
        peer = self.pair.peers[name]
        if kind <= 2:
            self.receive()
        elif kind == 3:
            peer.down()
        elif kind == 4:
            peer.connect_error = self.chance.choice(
                [None, None, AssociationRejected("PACS", 1, 1, 1)]
            )
        elif kind == 5:
            self.pair.forwarder.pause(name, "update")
        elif kind == 6:
            self.pair.forwarder.resume(name)
        elif kind == 7:
            status, share = self.chance.choice([0x0110, 0xA700, 0xA900]), self.chance.random()
            peer.answer = lambda uid: Answer(status if self.chance.random() < share else 0)
        elif kind == 8:
            for association in peer.associations:
                association.end()
        elif kind == 9:
            self.reload(name)
        else:
            seconds = self.chance.choice([0.001, 1.0, 30.0])
            peer.latency = lambda uid: seconds
            self.pair.forwarder.refresh(name)

    def receive(self) -> None:
        members = self.chance.sample(NAMES, self.chance.choice([1, 2, 3]))
        count = self.chance.randrange(1, 40)
        if len(members) > 1 and self.chance.random() < 0.3:
            study(self.pair, f"1.9.{self.chance.randrange(20)}", count, *members)
        else:
            refusal = self.chance.choice(["", "next"]) if len(members) > 1 else ""
            mode = self.chance.choice(MODES) if len(members) > 1 else "one"
            self.pair.receive(*members, mode=mode, count=count, on_refusal=refusal)

    def reload(self, name: str) -> None:
        gone = self.configs.pop(name, None) is not None and self.chance.random() < 0.3
        if not gone:
            chance = self.chance
            hours = Hours("night", WINDOWS, chance.choice(["finish", "stop"]))
            self.configs[name] = replace(
                self.pair.configs[name],
                identity=chance.randrange(3),
                hours=chance.choice([None, hours, replace(hours, urgent=chance.choice([0, 5]))]),
                speed=Speed(rate=chance.choice([0.1, 5.0, float("inf")])),
                associations=chance.choice([1, 3]),
                asynchronous_operations=chance.choice([1, 4]),
                association_per=chance.choice([None, "study", "instance"]),
                retry=_PLAIN.model_copy(
                    update={"give_way_after": chance.choice([None, 60.0]), "max_age": None}
                ),
            )
        self.outgoing = self.chance.choice(
            [ALL_DAY, Outgoing(Bandwidth(otherwise=5000.0)), Outgoing(associations=4)]
        )
        self.configure()

    def configure(self) -> None:
        self.pair.forwarder.configure(self.configs.values(), frozenset(NAMES), self.outgoing)

    def calm(self) -> None:
        for name, peer in self.pair.peers.items():
            peer.connect_error = None
            peer.answer = lambda uid: Answer(0)
            peer.latency = lambda uid: 0.001
            self.pair.forwarder.resume(name)
        self.outgoing = ALL_DAY
        self.configs = {
            name: replace(self.configs.get(name, config), speed=Speed())
            for name, config in self.pair.configs.items()
        }
        self.configure()


@pytest.mark.parametrize("seed", range(6))
def test_after_any_weather_nothing_is_left_waiting(tmp_path: Path, seed: int) -> None:
    async def steps(pair: Pair) -> None:
        weather = Weather(pair, seed)
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        for _ in range(150):
            weather.step()
            await asyncio.sleep(weather.chance.choice([0.01, 1.0, 30.0, 900.0]))
        weather.calm()
        await asyncio.sleep(3 * 3600)
        jumps = loop.selector.jumps
        await asyncio.sleep(24 * 3600)  # in which one that was refused waits for another
        assert loop.selector.jumps - jumps < 12_000, "something never comes to rest"
        account = pair.real.account(audit=True)
        assert account.balanced, account.differences
        states = {d: (line.waiting, line.dead) for d, line in account.destinations.items()}
        assert all(waiting == 0 for waiting, _ in states.values()), states
        stored = {uid for peer in pair.peers.values() for uid in peer.delivered}
        settled = Counter(
            delivery.state
            for number in range(1, pair.number + 1)
            if (row := pair.real.instance(number)) is not None
            for delivery in row.deliveries
        )
        assert set(settled) <= SETTLED
        assert len(stored) >= settled[DeliveryState.DELIVERED] > pair.number // 2

    scenario(tmp_path, steps, retry=_PLAIN)
