"""Scenarios run on both kinds of loop, asyncio's own with its debug mode on."""

import gc
from collections.abc import Iterator

import pytest

from tests.net.support import Runner


@pytest.fixture(scope="package", autouse=True)
def quick_collections() -> Iterator[None]:
    """Every scenario ends with a collection, which need not look at what was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return Runner(request.param)
