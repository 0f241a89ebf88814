"""Some ten thousand cases over all targets, and the kept corpus in full.

Full size: ``python -m tests.fuzz.run --cases 10000000 --jobs 2``.
"""

import secrets
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.ul import encode_pdu
from tests.fuzz.atheris_run import CORPUS
from tests.fuzz.core import SIZES, pieces
from tests.fuzz.mutate import MAGIC, Mutator
from tests.fuzz.run import save, shares
from tests.fuzz.runner import replay, run
from tests.fuzz.targets import TARGETS
from tests.fuzz.tree import flatten
from tests.ul import strategies

CASES = 10_000
SHARES = shares(CASES, list(TARGETS))
KEPT = sorted(CORPUS.glob("*/*.bin"))
DIRECTORY = Path("build/fuzz")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", ["same every time", secrets.token_hex(4)], ids=["same", "fresh"])
def test_mutated_input_breaks_no_promise(name: str, seed: str) -> None:
    report = run(TARGETS[name], SHARES[name], seed, sampled=200)
    if finding := report.finding:
        path = save(finding, DIRECTORY)
        pytest.fail(f"seed {seed!r}, input in {path}\n{finding.error}", pytrace=False)
    assert report.cases == SHARES[name]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_kept_input_breaks_no_promise(path: Path) -> None:
    replay(TARGETS[path.parent.name], path.read_bytes())


def test_the_corpus_is_small_and_every_target_has_one() -> None:
    assert {path.parent.name for path in KEPT} == set(TARGETS)
    assert len(KEPT) < 300
    assert sum(path.stat().st_size for path in KEPT) < 2**20


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_what_the_target_accepts(name: str) -> None:
    # Else everything would end at the first refusal, and nothing behind it be looked at.
    target = TARGETS[name]
    seeds = [flatten(head, nodes).data for head, nodes in target.seeds()]
    refused = [target.check(seed).refused for seed in seeds]
    assert refused.count(False) >= len(seeds) // 2
    mutated = Mutator(target.seeds(), "1", head=target.head, kept=target.kept, magic=MAGIC)
    outcomes = {target.check(data).refused for data in mutated.inputs(60)}
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_gives_the_same_inputs_again(name: str) -> None:
    target = TARGETS[name]

    def inputs(seed: str) -> list[bytes]:
        mutator = Mutator(target.seeds(), seed, head=target.head, kept=target.kept, magic=MAGIC)
        return list(mutator.inputs(100))

    assert inputs("a") == inputs("a") != inputs("b")


@pytest.mark.parametrize("number", [0, 7, 8, 99, 255])
def test_pieces_are_the_whole(number: int) -> None:
    data = bytes(range(256)) * 4
    cut = list(pieces(data, number))
    assert b"".join(cut) == data
    assert all(cut)
    assert len(SIZES) == 256


CONNECTIONS = st.sampled_from(["acceptor", "requestor", "conversation", "negotiation"])
STREAMS = st.lists(strategies.pdus, min_size=1, max_size=4).map(
    lambda pdus: b"".join(map(encode_pdu, pdus))
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONNECTIONS, st.binary(min_size=3, max_size=3), STREAMS)
def test_streams_of_any_pdus_break_no_promise(name: str, choices: bytes, stream: bytes) -> None:
    target = TARGETS[name]
    target.check(choices[: target.head] + stream)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(TARGETS)), st.binary(max_size=200))
def test_any_bytes_break_no_promise(name: str, data: bytes) -> None:
    TARGETS[name].check(data)
