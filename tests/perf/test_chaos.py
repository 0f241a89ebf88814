"""The plan of the kills; that nothing is lost by them is `tests.e2e.test_kill`."""

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from perf import chaos_senders, failpoints
from perf.chaos import RUNNING, STARTING, STOPPING, plan
from perf.chaos_log import is_expected, wrong_lines
from perf.chaos_settings import ASLEEP, MOODY, STEADY, settings
from router.config import load


def test_half_of_the_kills_are_chosen_and_every_phase_has_as_many() -> None:
    phases = list(failpoints.SITES)
    kills = list(itertools.islice(plan(random.Random(1)), 20 * 2 * len(phases)))
    chosen = Counter(kill.phase for kill in kills if kill.point is not None)
    chance = Counter(kill.phase for kill in kills if kill.point is None)
    assert chosen == dict.fromkeys(phases, 20)
    assert chance.keys() == {STARTING, RUNNING, STOPPING}
    assert sum(chance.values()) == sum(chosen.values())


def test_the_same_seed_plans_the_same_kills() -> None:
    one, two = (list(itertools.islice(plan(random.Random(7)), 60)) for _ in range(2))
    assert one == two
    assert one != list(itertools.islice(plan(random.Random(8)), 60))


@pytest.mark.parametrize("other", [False, True])
def test_the_gateway_takes_both_configurations(tmp_path: Path, other: bool) -> None:
    ports = {STEADY: 11112, MOODY: 11113, ASLEEP: 11114}
    local = {"ae_title": "ROUTER", "listen": "127.0.0.1:11111", "accept": "any"}
    values = settings(ports, segment_size="4MiB", other=other, archive="/mnt/archive")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"local": [local], **values}))
    loaded = load(path)
    assert not loaded.warnings
    remotes = loaded.config.remotes
    assert remotes.keys() == ports.keys()
    assert [name for name, remote in remotes.items() if remote.commitment] == [STEADY]


def test_a_reload_changes_how_it_asks_for_commitment_and_what_is_purged() -> None:
    one, two = (
        settings({STEADY: 11112}, segment_size="4MiB", other=other, archive="/mnt/archive")
        for other in (False, True)
    )
    assert one["remotes"][STEADY]["commitment"] != two["remotes"][STEADY]["commitment"]
    assert "high_water" in one["spool"]
    assert "high_water" not in two["spool"]


def test_what_a_kill_cuts_short_is_no_error_and_all_else_is() -> None:
    torn = {
        "event": "damage in the spool",
        "where": "instance 7: CRC-32 is 00000001, 00000002 was committed",
    }
    assert is_expected(torn)
    assert not is_expected(torn | {"where": "instance 7: its file 7.dat is missing"})
    assert not is_expected(torn | {"event": "the index cannot be written"})


def test_a_reload_that_meets_the_stop_is_no_error_and_any_other_is() -> None:
    line = {
        "event": "configuration not reloaded",
        "problem": "c.yaml: the gateway is being stopped",
    }
    assert is_expected(line)
    assert not is_expected(line | {"problem": "c.yaml:3: unknown key"})


def test_what_is_sent_as_a_whole_is_of_a_study_of_its_own() -> None:
    bodies = set()
    for sender, number in ((0, 0), (0, 1), (1, 0)):
        _, body = chaos_senders._WHOLE.make(0, 1)
        changed = chaos_senders._in_study(body, sender, number)
        assert len(changed) == len(body)
        bodies.add(changed)
    assert len(bodies) == 3


def test_a_segment_that_a_start_misses_is_wrong_and_any_other_note_is_not() -> None:
    def noted(note: str) -> dict[str, object]:
        return {"event": "spool", "level": "warning", "note": note}

    missed = "segment 00000001.seg is missing, in which generation 3 was begun"
    lines = [noted("5 files under large/ were removed"), noted(missed), noted(missed)]
    assert wrong_lines(lines) == {missed: 2}
