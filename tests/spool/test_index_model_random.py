"""The same machine as in `test_index_model`, driven by chance: what hypothesis seldom reaches.

Hypothesis likes what is small and the same again; a diversion with duplicates at both ends needs a
long life with many kinds of instances.  The seeds are fixed, so a failure comes again.
"""

import random

import pytest

from tests.spool.index_model import DESTINATIONS, PLANS, ROUTES, STUDIES
from tests.spool.index_samples import DEAD, DELIVERED, DROPPED, READY, UNCOMMITTED
from tests.spool.test_index_model import IndexMachine

_STEPS = 60
_WEIGHTS = {
    "add": 6,
    "divert": 8,
    "open_gate": 4,
    "shut_gate": 2,
    "send": 5,
    "ask": 2,
    "answer": 2,
    "accept": 1,
    "act": 3,
    "hasten": 1,
    "settle_anything": 1,
    "drop_one": 1,
    "decide_held": 1,
    "purge": 1,
    "pass_time": 2,
    "reopen": 1,
    "lose": 1,
}


def _some_ids(chance: random.Random) -> set[int]:
    return set(chance.sample(range(1, 20), chance.choice((0, 0, 0, 3))))


def _step(machine: IndexMachine, what: str, chance: random.Random) -> None:
    destination = chance.choice(DESTINATIONS)
    perhaps = chance.choice((None, destination))
    study = chance.choice((None, None, *STUDIES))
    match what:
        case "add":
            new = [
                (
                    chance.randint(1, 3),
                    chance.choice(STUDIES),
                    chance.choice(ROUTES),
                    chance.choice(("hold", "discard")),
                    chance.randint(0, 1),
                    chance.choice(PLANS),
                )
                for _ in range(chance.randint(1, 8))
            ]
            machine.add(new=new, again=chance.random() < 0.2)
        case "divert":
            machine.divert(
                destination=destination,
                down=chance.choice(ROUTES),
                exclude=_some_ids(chance),
                limit=chance.choice((1, 2, 100)),
            )
        case "open_gate":
            if machine.shut:
                machine.open_gate(which=chance.randrange(20), limit=chance.choice((1, 2, 100)))
        case "shut_gate":
            machine.shut_gate(
                destination=perhaps, exclude=_some_ids(chance), limit=chance.choice((1, 100))
            )
        case "send":
            machine.send(
                destination=destination,
                limit=chance.randint(1, 5),
                fate=chance.choice((DELIVERED, DEAD, DROPPED, READY, UNCOMMITTED, UNCOMMITTED)),
                delay=chance.choice((None, 10.0, 1000.0)),
            )
        case "ask":
            machine.ask(destination=destination, limit=chance.randint(1, 5))
        case "answer":
            if machine.asked:
                machine.answer(
                    which=chance.randrange(20), fate=chance.choice((DELIVERED, READY, DEAD))
                )
        case "accept":
            if chance.random() < 0.3:
                machine.accept(destination=destination)
        case "act":
            action = chance.choice(("retry", "hold", "release", "drop"))
            machine.act(action=action, destination=perhaps, study=study)
        case "hasten":
            machine.hasten(destination=perhaps, study=study)
        case "settle_anything" | "drop_one":
            number = chance.randint(1, max(machine.last, 1))
            getattr(machine, what)(number=number, destination=destination)
        case "decide_held":
            machine.decide_held(destinations=[destination], route=chance.random() < 0.5)
        case "purge":
            machine.purge(limit=chance.randint(1, 10), oldest_first=chance.random() < 0.5)
        case "pass_time":
            machine.pass_time(seconds=chance.choice((1.0, 20.0, 2000.0)))
        case _:
            getattr(machine, what)()


@pytest.mark.parametrize("seed", range(40))
def test_a_long_life_agrees_with_a_dictionary(seed: int) -> None:
    chance = random.Random(seed)
    machine = IndexMachine()
    machine.begin()
    try:
        for what in chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=_STEPS):
            if what == "reopen" and not machine.last:
                continue
            _step(machine, what, chance)
            machine.adds_up()
            machine.is_where_it_should_be()
    finally:
        machine.teardown()
