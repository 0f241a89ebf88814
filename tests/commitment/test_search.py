"""What is found of a UID that several instances have."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from router.commitment.search import Search
from router.spool import index_promises
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_promises import PromiseItem
from tests.commitment.threads import SlowThread
from tests.spool.index_samples import add, audited, fill, meta, ref

CT = "1.2.840.10008.5.1.4.1.1.2"
UID = "1.9"


async def _at_once() -> None:
    """The index is behind with nothing."""


@pytest.mark.parametrize("seems", ["told", "told twice, as it seemed to fail"])
async def test_what_came_behind_one_of_a_higher_number_was_never_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seems: str
) -> None:
    """Regression: a long one that began before others and is told of after them was not there."""
    with audited(tmp_path / "index.db") as index:
        fill(index, [60], "pacs", study="1.1")
        search = Search(index, SlowThread(), asyncio.Lock(), _at_once)
        wanted = {1: [PromiseItem(1, CT, UID, None)]}
        assert await search.look(wanted) == {}
        late = ref(50, generation=2), meta(50, "pacs", uid=UID)
        if seems != "told":
            with monkeypatch.context() as patch:
                patch.setattr(index._db, "transaction", _seeming_to_fail(index))
                with pytest.raises(SpoolError):
                    add(index, late)
        add(index, late)
        for _ in range(2):
            (one,) = (await search.look(wanted))[UID]
            assert one.instance_id == 50


def _seeming_to_fail(index: Index) -> Callable[[], AbstractContextManager[None]]:
    """Transactions that are committed and end with an error."""
    transaction = index._db.transaction

    @contextmanager
    def failing() -> Iterator[None]:
        with transaction():
            yield
        raise SpoolError("disk I/O error")

    return failing


@pytest.mark.parametrize("step", [1, 2, 100])
async def test_of_two_objects_with_one_uid_the_last_is_found_in_a_study_that_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(index_promises, "_STEP", step)
    with audited(tmp_path / "index.db") as index:
        for n in range(1, 5):
            fill(index, [n], "pacs", study=f"1.{n}")
        add(index, (ref(5), meta(5, "pacs", uid=UID, study="1.4")))
        add(index, (ref(6), meta(6, "pacs", uid=UID, study="1.1")))
        search = Search(index, SlowThread(), asyncio.Lock(), _at_once)
        found = await search.look({1: [PromiseItem(1, CT, UID, None)]})
        assert sorted(one.instance_id for one in found[UID]) == [5, 6]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 100])
async def test_of_two_objects_with_one_uid_the_last_is_found_wherever_a_step_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """They lie beside each other in the index, by what is in them and not by when they came."""
    monkeypatch.setattr(index_promises, "_STEP", step)
    with audited(tmp_path / "index.db") as index:
        fill(index, [1, 2, 3], "pacs", study="1.1")
        add(index, (ref(4, crc=90), meta(4, "pacs", uid=UID)))
        add(index, (ref(5, crc=10), meta(5, "pacs", uid=UID)))
        search = Search(index, SlowThread(), asyncio.Lock(), _at_once)
        found = await search.look({1: [PromiseItem(1, CT, UID, None)]})
        assert sorted(one.instance_id for one in found[UID]) == [4, 5]
