"""The choice of the gates to be looked after, when there are many."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from router.spool.index import Index
from router.spool.index_soon import CLASSES, FIRST, Look, Soon
from router.spool.plan import Plan
from tests.spool.index_samples import T0, add, audited, meta, ref

STUDY = Plan(after="study-complete", quiet=60.0, wait=100.0)
ASKING = replace(STUDY, expect="vna")
SERIES = replace(STUDY, after="series-complete", quiet=5.0)
NIGHT = Plan(schedule="night")
LOOK = Look(T0, whole=5, each=3, soonest=4)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with audited(tmp_path / "index.db") as opened:
        yield opened


def _fill(index: Index, plan: Plan, *received: float, first: int = 1) -> None:
    """A study for each."""
    entries = []
    for number, at in enumerate(received, first):
        item = meta(number, "pacs", study=str(number), series=f"{number}.1", plan=plan, at=T0 + at)
        entries.append((ref(number), item))
    add(index, *entries)


def _ids(soon: Soon) -> list[int]:
    return [gate.id for gate in soon.gates]


def test_as_many_as_may_be_are_given_whole_and_as_they_are(index: Index) -> None:
    assert index.soon_gates(LOOK) == Soon([])
    _fill(index, STUDY, 5e6, -5, -1000, 0, 0)
    assert index.soon_gates(LOOK) == Soon(index.gates(), whole=True, until=inf)
    assert index.gates()[0].last_at == T0 + 5e6


def test_of_more_those_are_given_that_are_to_be_quiet_soonest(index: Index) -> None:
    _fill(index, STUDY, -10, -40, -20, -30, -5)
    _fill(index, SERIES, -4, -1, first=6)
    soon = index.soon_gates(LOOK)
    assert not soon.whole
    assert _ids(soon) == [6, 7, 2, 4]
    assert soon.until == T0 + 30
    assert soon.ends == (None, None, None)
    assert soon.gates == [{g.id: g for g in index.gates()}[number] for number in _ids(soon)]


def test_nothing_is_left_out_of_what_is_quiet_later_when_it_fits(index: Index) -> None:
    _fill(index, STUDY, -10, -20, -30, -70, -80, -90)
    assert index.soon_gates(LOOK).until == inf


def test_what_should_be_quiet_comes_by_pages_and_none_is_left_out(index: Index) -> None:
    _fill(index, STUDY, *[-60.0 - n % 7 for n in range(10)])
    _fill(index, STUDY, *[-160.0 - n for n in range(7)], first=11)
    _fill(index, ASKING, *[-100.0] * 8, first=21)
    wanted = set(range(1, 26))
    look, seen = LOOK, []
    for _ in range(4):
        soon = index.soon_gates(look)
        assert len(soon.gates) <= 9
        seen += _ids(soon)
        look = look.onward(soon, CLASSES, T0)
    assert set(seen) == wanted
    assert seen[:3] == [17, 16, 15], "first what has waited longest"
    one_class = LOOK.onward(index.soon_gates(LOOK), ("quiet",), T0)
    assert [place == FIRST for place in one_class.after] == [True, False, True]


def test_after_the_last_page_comes_the_first(index: Index) -> None:
    _fill(index, STUDY, *[-61.0] * 7)
    look, pages = LOOK, []
    for _ in range(4):
        soon = index.soon_gates(look)
        pages.append(_ids(soon))
        look = look.onward(soon, CLASSES, T0)
    assert pages == [[1, 2, 3], [4, 5, 6], [7], [1, 2, 3]]


def test_a_supplement_asks_no_archive(index: Index) -> None:
    _fill(index, ASKING, *[-70.0] * 4)
    for gate in index.gates():
        index.open_gate(gate.id)
    add(index, *((ref(n + 10), meta(n + 10, "pacs", study=str(n), plan=ASKING, at=T0 - 70))
                 for n in range(1, 5)))  # fmt: skip
    _fill(index, ASKING, *[-70.0] * 4, first=21)
    soon = index.soon_gates(LOOK)
    assert [gate.supplement for gate in soon.gates] == [1, 1, 1, 0, 0, 0]
    assert soon.ends[0] is None
    assert soon.ends[1:] != (None, None)


def test_gates_of_schedules_are_always_given(index: Index) -> None:
    _fill(index, STUDY, *[-10.0] * 9)
    _fill(index, NIGHT, 0.0, first=20)
    assert [gate.kind for gate in index.soon_gates(LOOK).gates] == ["study"] * 4 + ["schedule"]


def test_what_came_in_the_future_came_now_and_a_moment_of_it_does_not_count(index: Index) -> None:
    _fill(index, STUDY, 1e8, 59.0, 0, 0, 0, 0)
    index.soon_gates(LOOK)
    assert [gate.last_at - T0 for gate in index.gates()] == [0, 59, 0, 0, 0, 0]
    assert index.gates()[0].first_at == T0


def test_what_is_gone_is_not_given(index: Index) -> None:
    _fill(index, STUDY, *[-10.0] * 9)
    for gate in index.gates()[:3]:
        index.open_gate(gate.id)
    assert _ids(index.soon_gates(LOOK)) == [4, 5, 6, 7]
