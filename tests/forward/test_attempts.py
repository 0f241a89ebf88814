"""What is told of an attempt beside its outcome; and pauses, as the forwarder keeps them."""

import asyncio
from collections import deque
from pathlib import Path

import pytest

from router.forward import attempts as attempts_module
from router.forward.attempts import Attempts
from router.net.errors import AssociationBroken
from router.spool.index import Filter, Index
from router.spool.index_types import DeliveryState
from router.spool.record import Position
from tests.forward.fakes import Answer, House, waiting
from tests.forward.test_with_index import Gateway, entry
from tests.forward.virtual import run, wall

DELIVERED = DeliveryState.DELIVERED


def test_what_never_began_or_ended_before_is_not_known() -> None:
    now = [5.0]
    attempts = Attempts(lambda: now[0])
    assert attempts.ended(1) == ("", None)
    attempts.begun(1, "out-1")
    now[0] = 7.0
    attempts.begun(1, "out-2")  # it came back unsent
    now[0] = 7.5
    assert attempts.ended(1) == ("out-2", 0.5)
    assert attempts.ended(1) == ("", None)


def test_what_nobody_hears_of_again_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "_LIMIT", 3)
    attempts = Attempts(lambda: 0.0)
    for number in range(1, 5):
        attempts.begun(number, "out-1")
    assert [attempts.ended(n)[0] for n in range(1, 5)] == ["", "", "", "out-1"]


def test_each_attempt_tells_its_association_and_how_long_it_took(tmp_path: Path) -> None:
    async def scenario() -> None:
        index = Index.open(tmp_path / "index.db")
        index.add(
            [entry(1, wall(), "pacs")],
            Position(1, 9),
            suppress_duplicates=True,
            same_bytes=lambda *_: True,
        )
        house = House("pacs", index=Gateway(index))
        answers: deque[Answer | Exception] = deque(
            [AssociationBroken("reset", "it broke"), Answer(0xA700), Answer(0)]
        )
        house.peer.answer = lambda uid: answers.popleft()
        house.peer.latency = lambda uid: 0.25
        house.start()
        while not index.queue_list(Filter(state=DELIVERED), 1):
            await asyncio.sleep(1.0)
        await house.stop()
        row = index.instance(1)
        assert row is not None
        assert [(a.outcome.name, a.status) for a in row.attempts] == [
            ("READY", None),
            ("READY", 0xA700),
            ("DELIVERED", 0),
        ]
        first, second, third = row.attempts
        assert first.association == "out-1"
        assert len({a.association for a in row.attempts}) >= 2
        assert third.association
        assert "it broke" in first.reason
        assert "A700" in second.reason
        for attempt in row.attempts:
            assert attempt.seconds is not None
            assert 0.25 <= attempt.seconds < 0.3, "virtual time: no more than the answer took"
        index.close()

    run(scenario())


def test_a_pause_is_kept_for_whoever_is_configured() -> None:
    async def scenario() -> None:
        house = House("pacs", "vna")
        house.forwarder.pause("pacs", "by eva")
        house.forwarder.pause("later", "by ada")
        house.index.add("pacs", waiting(1))
        house.index.add("vna", waiting(2))
        house.start()
        await house.index.until_closed("vna")
        await asyncio.sleep(3600)
        assert house.peers["pacs"].connects == []
        assert house.forwarder.snapshot()["pacs"].paused == "by eva"
        # A reload does not end it.
        changed = [house.config("pacs", identity=1), house.config("vna")]
        house.forwarder.configure(changed)
        await asyncio.sleep(3600)
        assert house.peers["pacs"].connects == []
        house.forwarder.resume("pacs")
        await house.index.until_closed("pacs")
        assert house.peers["pacs"].delivered == ["1.2.3.1"]
        assert house.forwarder.snapshot()["pacs"].paused == ""
        house.forwarder.resume("nobody")
        await house.stop()

    run(scenario())


def test_what_is_on_its_way_is_known_by_its_number() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.latency = lambda uid: 5.0
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(1.0)
        assert house.forwarder.sending() == {(1, "pacs")}
        await house.index.until_closed("pacs")
        assert house.forwarder.sending() == set()
        await house.stop()

    run(scenario())
