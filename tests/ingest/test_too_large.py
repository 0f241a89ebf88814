"""Data sets that are too long, or that never end."""

import asyncio
from pathlib import Path

import pytest

from router.ingest.settings import StorageSettings
from tests.ingest.support import Reception, data_set, reception, store_rq, stored
from tests.net.support import Runner, Wire

MIB = 2**20
OUT_OF_RESOURCES = 0xA700


def files(subject: Reception) -> list[Path]:
    return list(subject.spool.large_directory.iterdir())


async def no_files(subject: Reception) -> None:
    async with asyncio.timeout(10.0):
        await subject.spool.quiet()
    assert files(subject) == []


@pytest.mark.parametrize("over", [0, 1, 3 * 2**18])
def test_a_data_set_over_the_limit_is_refused_at_its_end(
    run: Runner, tmp_path: Path, over: int
) -> None:
    async def scenario() -> None:
        settings = StorageSettings(max_instance=MIB)
        async with reception(tmp_path, settings) as subject:
            wire = await subject.associated()
            head = len(data_set(pixels=0))
            status, why = await stored(wire, data_set(pixels=MIB - head + over), 1)
            if over:
                assert (status, why) == (
                    OUT_OF_RESOURCES,
                    "longer than storage.max_instance, 1048576 bytes",
                )
                await no_files(subject)
            else:
                assert status == 0
            # The association goes on.
            assert (await stored(wire, data_set(), 2))[0] == 0
            await wire.release()
            await subject.quiet()

    run(scenario)


def long_one(size: int) -> bytes:
    """A C-STORE-RQ of about so many bytes."""
    return store_rq(data_set() + bytes(size), 1)


async def endless(subject: Reception, wire: Wire) -> None:
    """Send a data set without its end, until the association is cut off."""
    data = long_one(8 * MIB)[:-20_000]
    for at in range(0, len(data), 65536):
        if subject.observer.cut:
            break
        await wire.send(data[at : at + 65536])
    await wire.aborted()


def test_a_data_set_that_never_ends_filled_the_disk(run: Runner, tmp_path: Path) -> None:
    """Regression: it was kept as long as it came."""

    async def scenario() -> None:
        async with reception(tmp_path, StorageSettings(max_instance=MIB)) as subject:
            wire = await subject.associated()
            await endless(subject, wire)
            assert subject.observer.cut == {"too_large": 1}
            await wire.close()
            await no_files(subject)
            await subject.quiet()
            assert subject.feed.entries == []

    run(scenario)
    [line] = run.said("association aborted by us")
    assert "storage.max_instance" in line["why"]


def test_a_refused_data_set_that_never_ends_is_cut_off_too(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path, StorageSettings(max_instance=MIB)) as subject:
            subject.spool.refuse("low disk")
            wire = await subject.associated()
            await endless(subject, wire)
            assert subject.observer.cut == {"too_large": 1}
            await wire.close()
            await subject.quiet()

    run(scenario)


def test_what_was_arriving_when_the_disk_ran_low_took_the_rest_of_it(
    run: Runner, tmp_path: Path
) -> None:
    """Regression: `low_disk` bound new instances alone, so that one long one filled the disk."""

    async def scenario() -> None:
        async with reception(tmp_path, StorageSettings()) as subject:
            wire = await subject.associated()
            data = long_one(12 * MIB)
            await wire.send(data[: 3 * MIB])
            while not files(subject):
                await asyncio.sleep(0)
            subject.spool.refuse("low disk: 5 MiB are left for the spool")
            await wire.send(data[3 * MIB :])
            answer = await wire.answer()
            assert answer.status == OUT_OF_RESOURCES
            assert "low disk" in answer.error_comment
            await no_files(subject)
            subject.spool.refuse("")
            assert (await stored(wire, data_set(), 2))[0] == 0
            await wire.release()
            await subject.quiet()

    run(scenario)
