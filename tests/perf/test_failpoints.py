"""The moments at which chaos kills: they exist in the product, and come when they are said to."""

import asyncio
import contextlib
import os
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from perf import failpoints
from perf.failpoints import AFTER, BEFORE, INSIDE, SITES, TORN, Failpoint, Site

ALL_SITES = [site for sites in SITES.values() for site in sites]


class Died(BaseException):
    """In place of the end of the process."""


def die() -> None:
    raise Died


def until_it_dies(work: Callable[[int], object], first: int = 1) -> None:
    """Calls with rising numbers; twenty are enough."""
    with contextlib.suppress(Died):
        for number in range(first, first + 20):
            work(number)
        pytest.fail("it outlived its failpoint")


@pytest.fixture
def product(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module to put failpoints into, and `os.pwritev` as it was afterwards."""
    module = types.ModuleType("product_under_fire")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(os, "pwritev", os.pwritev)
    yield module
    sys.setprofile(None)


@pytest.mark.parametrize("target", sorted({site.target for site in ALL_SITES}))
def test_every_place_is_a_function_of_the_product(target: str) -> None:
    owner, name = failpoints.resolve(target)
    assert callable(getattr(owner, name))


def test_a_function_that_is_gone_is_told() -> None:
    with pytest.raises(AttributeError):
        failpoints.resolve("router.spool.writer:Writer.appendix")


def test_coroutines_are_left_only_before_and_after() -> None:
    for site in ALL_SITES:
        owner, name = failpoints.resolve(site.target)
        if asyncio.iscoroutinefunction(getattr(owner, name)):
            assert set(site.where) <= {BEFORE, AFTER}, site


def test_chosen_moments_cover_every_place_of_a_phase() -> None:
    dice = random.Random(1)
    for phase, sites in SITES.items():
        chosen = [failpoints.choose(phase, dice) for _ in range(400)]
        wanted = {(site.target, where) for site in sites for where in site.where}
        assert {(point.target, point.where) for point in chosen} == wanted
        assert all(point.call >= 1 and point.step >= 1 for point in chosen)


def test_before_and_after_are_at_the_call_that_was_counted(product: types.ModuleType) -> None:
    done: list[int] = []
    product.work = done.append
    failpoints.arm(Failpoint("product_under_fire:work", BEFORE, call=3), die)
    until_it_dies(product.work)
    assert done == [1, 2]

    product.work = done.append
    failpoints.arm(Failpoint("product_under_fire:work", AFTER, call=3), die)
    until_it_dies(product.work, 3)
    assert done == [1, 2, 3, 4, 5]


async def test_a_coroutine_is_awaited_before_the_end_after_it(product: types.ModuleType) -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        done.set()

    product.work = work
    failpoints.arm(Failpoint("product_under_fire:work", AFTER), die)
    with pytest.raises(Died):
        await product.work()
    assert done.is_set()


def test_inside_counts_system_and_database_calls_only(product: types.ModuleType) -> None:
    connection = apsw.Connection(":memory:")

    def work() -> None:
        sorted([2, 1])
        connection.execute("CREATE TABLE t (a)")
        os.getpid()
        connection.execute("INSERT INTO t VALUES (1)")

    product.work = work
    # Each call is a step when it begins and another when it has ended: the sixth is the insert.
    failpoints.arm(Failpoint("product_under_fire:work", INSIDE, step=6), die)
    with pytest.raises(Died):
        product.work()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    connection.close()


def test_steps_are_counted_on_through_later_calls(product: types.ModuleType) -> None:
    calls = []

    def work(number: int) -> None:
        calls.append(number)
        os.getpid()

    product.work = work
    failpoints.arm(Failpoint("product_under_fire:work", INSIDE, call=2, step=4), die)
    until_it_dies(product.work)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("lengths", "left"), [((100,), 50), ((4096, 4096, 4096), 4096), ((5000, 20_000), 12_288)]
)
def test_a_torn_write_leaves_a_part_in_the_file(
    product: types.ModuleType, tmp_path: Path, lengths: tuple[int, ...], left: int
) -> None:
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    product.work = lambda: os.pwritev(fd, [b"x" * n for n in lengths], 0)
    failpoints.arm(Failpoint("product_under_fire:work", TORN, step=2), die)
    os.pwritev(fd, [b"of nobody"], 0)
    product.work()
    assert path.stat().st_size == sum(lengths)
    os.ftruncate(fd, 0)
    with pytest.raises(Died):
        product.work()
    assert path.stat().st_size == left
    os.close(fd)


def test_only_the_named_thread_counts(product: types.ModuleType) -> None:
    done: list[str] = []
    product.work = done.append
    failpoints.arm(Failpoint("product_under_fire:work", AFTER, thread="spool-commit"), die)
    product.work("here")
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            product.work("there")
        except Died as death:
            caught.append(death)

    thread = threading.Thread(target=elsewhere, name="spool-commit-1")
    thread.start()
    thread.join()
    assert done == ["here", "there"]
    assert len(caught) == 1


def test_static_and_class_methods_stay_what_they_are(product: types.ModuleType) -> None:
    class Thing:
        @classmethod
        def make(cls) -> str:
            return cls.__name__

        @staticmethod
        def size() -> int:
            return 3

    product.Thing = Thing
    for name in ("make", "size"):
        failpoints.arm(Failpoint(f"product_under_fire:Thing.{name}", BEFORE, call=2), die)
    assert (Thing.make(), Thing.size()) == ("Thing", 3)
    with pytest.raises(Died):
        Thing.make()
    with pytest.raises(Died):
        Thing.size()


def test_a_site_by_default_ends_at_its_first_call() -> None:
    assert (Site("a:b").calls, Site("a:b").steps, Site("a:b").where) == (1, 1, (BEFORE, AFTER))
