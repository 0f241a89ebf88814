"""Commitment as SCU: other settings, operators, and hours."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.spool.index import Filter
from tests.commitment.asked import PACS, Scene, play, uid
from tests.forward.virtual import wall
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    READY,
    UNCOMMITTED,
    fate,
    state,
)

# -- another configuration


def test_without_the_setting_all_is_delivered(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(*range(1, 6))
        await scene.until(11)
        scene.committers.configure([], [PACS])
        await scene.until(12)
        assert [state(scene.index, n, PACS) for n in range(1, 6)] == [DELIVERED] * 5
        reason = fate(scene.index, 1, PACS).reason
        assert reason == "commitment is not asked for any more"
        await scene.took(6)  # it was on its way when the setting went
        await scene.until(13)
        assert state(scene.index, 6, PACS) is DELIVERED
        assert scene.counts.became == {"accepted": 6}

    play(tmp_path, main)


def test_a_destination_that_is_gone_has_committed_nothing(tmp_path: Path) -> None:
    """It may be a slip in a name: what it took stays, and is asked for when it is back."""

    async def main(scene: Scene) -> None:
        await scene.took(1, 2)
        await scene.until(11)
        scene.committers.configure([], ["pasc"])
        await scene.until(1000)
        assert [state(scene.index, n, PACS) for n in (1, 2)] == [UNCOMMITTED] * 2
        asked = len(scene.archive.asked)
        scene.committers.configure([scene.config], ["pasc"])
        await scene.until(2000)
        assert len(scene.archive.asked) > asked

    play(tmp_path, main)


def test_what_is_left_of_an_earlier_configuration_is_settled_at_the_start(tmp_path: Path) -> None:
    async def before(scene: Scene) -> None:
        await scene.took(1)

    async def after(scene: Scene) -> None:
        await scene.until(1)
        assert state(scene.index, 1, PACS) is DELIVERED

    play(tmp_path, before)
    play(tmp_path, after, configured=False)


def test_the_index_in_trouble_delays_that(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.slow.broken = 1
        await scene.took(1)
        await scene.until(20)
        assert state(scene.index, 1, PACS) is UNCOMMITTED
        await scene.until(40)
        assert state(scene.index, 1, PACS) is DELIVERED

    play(tmp_path, main, configured=False)


def test_other_settings_take_effect_and_the_same_ones_change_nothing(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(1)
        scene.committers.configure([scene.config])
        assert scene.archive.calls == 0
        scene.committers.configure([scene.with_settings(batch=1)])
        await scene.until(2)
        assert len(scene.archive.asked) == 1

    play(tmp_path, main)


def test_what_was_refused_as_the_settings_changed_is_told_of(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        quick, refusing = scene.slow.run, asyncio.Event()

        async def slow(work: Callable[..., Any], *args: Any, **more: Any) -> Any:
            """What the index's thread has begun it does, whoever goes away meanwhile."""
            doing = asyncio.ensure_future(quick(work, *args, **more))
            if work.__name__ == "answer" and args[2]:
                refusing.set()
            return await asyncio.shield(doing)

        scene.slow.run = slow  # type: ignore[method-assign]
        scene.archive.listed = set()
        await scene.took(1)
        await refusing.wait()
        scene.committers.configure([scene.with_settings(after=20.0)])
        await asyncio.sleep(1)
        assert state(scene.index, 1, PACS) is READY
        assert scene.resent, "its queue sleeps"

    play(tmp_path, main, confirm="find")


def test_an_operator_may_end_the_wait_and_nothing_is_asked(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(5)
        scene.index.drop(Filter(destination=PACS, state=UNCOMMITTED), "enough", at=0.0)
        await scene.until(3000)
        assert scene.archive.calls == 0

    play(tmp_path, main)


def test_an_operator_has_it_asked_now_however_often_it_was_in_vain(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.up = False
        await scene.took(1)
        await scene.until(3000)
        scene.archive.up = True
        calls = scene.archive.calls
        scene.committers.hasten("another")
        await scene.until(3001)
        assert scene.archive.calls == calls
        scene.index.ask_again(Filter(), at=wall())
        scene.committers.hasten(PACS)
        await scene.until(3002)
        assert [len(action.items) for action in scene.archive.actions] == [1]

    play(tmp_path, main)


def test_a_clock_that_was_ahead_delays_nothing(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        assert scene.index.commitments.ask(PACS, "2.24.1", 10, 4e9, 4e9 + 60) is not None
        await scene.took(2)
        await scene.until(100)
        asked = [item.sop_instance_uid for a in scene.archive.actions for item in a.items]
        assert sorted(asked) == ["1.2.3.4.1", "1.2.3.4.2"], "each once"

    play(tmp_path, main)


def test_nor_does_it_when_the_archive_is_looked_at(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.listed = set()
        await scene.took(1)
        assert scene.index.commitments.ask(PACS, "2.24.1", 10, 4e9, 4e9 + 60) is not None
        await scene.until(500)
        assert state(scene.index, 1, PACS) is UNCOMMITTED, "it has the time of any other"
        await scene.until(800)
        assert state(scene.index, 1, PACS) is READY

    play(tmp_path, main, confirm="find", resend=1)


# -- paused and shut


def test_while_it_is_paused_it_is_asked_nothing_and_what_it_says_counts(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(11)
        assert scene.archive.calls == 1
        scene.hold("paused: by anna")
        await scene.took(2)
        await scene.until(2000)
        scene.committers.hasten(PACS)
        await scene.until(2010)
        assert len(scene.archive.asked) == 1
        assert scene.committers.snapshot()[PACS].trouble == "paused: by anna"
        assert await scene.report("2.25.1", uid(1)) == 0
        assert state(scene.index, 1, PACS) is DELIVERED
        scene.hold()
        await scene.until(2011)
        assert len(scene.archive.asked) == 2, "the first has waited long enough"
        assert scene.committers.snapshot()[PACS].trouble == ""

    play(tmp_path, main)


def test_a_pause_between_two_batches_holds_at_once(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.archive.takes = 5.0
        await scene.took(*range(1, 8))
        await scene.until(1)
        scene.hold("paused: by anna")
        await scene.until(100)
        assert len(scene.archive.asked) == 1

    play(tmp_path, main, batch=3)


def test_while_its_schedule_is_shut_it_waits_until_that_opens(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        scene.hold("schedule night is shut", wall() + 1000)
        await scene.took(1)
        await scene.until(999)
        assert scene.archive.calls == 0
        scene.held = None  # nobody says so: it looks for itself
        await scene.until(1001)
        assert scene.archive.calls == 1

    play(tmp_path, main)


def test_what_could_not_be_asked_for_has_time_for_an_answer_before_it_is_dead(
    tmp_path: Path,
) -> None:
    async def main(scene: Scene) -> None:
        await scene.took(1)
        await scene.until(11)
        scene.hold("paused: by anna")
        await scene.until(10_000)
        assert state(scene.index, 1, PACS) is UNCOMMITTED, "no fault of the archive"
        scene.hold()
        await scene.until(10_100)
        assert len(scene.archive.asked) == 2
        assert state(scene.index, 1, PACS) is UNCOMMITTED
        await scene.until(10_700)
        assert state(scene.index, 1, PACS) is DEAD

    play(tmp_path, main, max_age=3000)
