"""The soak's course in small: everything is measured, everything arrives, a leak would show."""

import asyncio
from pathlib import Path

import pytest

from perf import series
from perf.book import Book
from perf.series import Bound
from perf.soak import BOUNDS, Soak, settings
from perf.soak_traffic import DESTINATIONS, PACES, Pace, Traffic

SECONDS = 12.0
# Memory is still being warmed up in so short a time.
WARMING = {"rss_bytes", "pss_bytes", "index_bytes", "live_bytes", "other_files"}


@pytest.mark.timeout(120)
def test_a_short_course_is_measured_and_loses_nothing(tmp_path: Path) -> None:
    soak = Soak(tmp_path / "home", seconds=SECONDS, scale=0.3, seed=1)
    asyncio.run(soak.run())
    text = soak.table()
    assert not soak.book.faults, text
    assert {verdict.bound.column for verdict in soak.verdicts} == {b.column for b in BOUNDS}
    assert [
        v.bound.column for v in soak.verdicts if not v.flat and v.bound.column not in WARMING
    ] == []
    assert soak.book.acknowledged, text
    assert soak.book.settled
    assert all(soak.book.arrived[name] for name in DESTINATIONS), text
    assert min(soak.traffic.done[name] for name in ("associations", "idle", "broken off")) > 0
    assert soak.reloads > 5
    assert soak.flaps > 5

    soak.write(tmp_path / "soak")
    rows = series.read_csv(tmp_path / "soak.csv")
    assert len(rows) == len(soak.rows) > 30
    assert all(row["rss_bytes"] > 20e6 and row["tasks"] > 0 for row in rows)
    assert rows[-1]["gc_0"] >= rows[0]["gc_0"] >= 0
    assert rows[-1]["acknowledged"] > rows[0]["acknowledged"]
    assert (tmp_path / "soak.svg").read_text().count("<polyline") > len(BOUNDS)


def test_a_leak_in_the_figures_of_a_run_is_a_growth() -> None:
    rows = [{series.TIME: t * 5.0, **{b.column: 40.0 for b in BOUNDS}} for t in range(361)]
    assert all(verdict.flat for verdict in series.judge(rows, BOUNDS))
    for row in rows:
        # One task forgotten every half minute.
        row["tasks"] += row[series.TIME] // 30
    assert [v.bound.column for v in series.judge(rows, BOUNDS) if not v.flat] == ["tasks"]


def test_both_configurations_differ_only_in_what_may_be_reloaded() -> None:
    ports = {name: 1000 + n for n, name in enumerate(DESTINATIONS)}
    one, two = (settings(ports, other=other) for other in (False, True))
    assert one != two
    assert one["spool"]["segment_size"] == two["spool"]["segment_size"]


def test_the_stated_rate_is_that_of_all_senders() -> None:
    pace = Pace(PACES[0].kind, DESTINATIONS, rate=2.0, instances=3)
    assert pace.instances_per_second == 6.0
    assert pace.bytes_per_second == 6.0 * PACES[0].kind.pixel_bytes


async def test_an_association_that_breaks_is_a_fault() -> None:
    """The listener hangs up on everyone: that is nothing to be silent about."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    book = Book(DESTINATIONS)
    traffic = Traffic(server.sockets[0].getsockname()[1], book, scale=20.0, seed=1, idle=1.0)
    running = asyncio.create_task(traffic.run())
    while not book.faults:
        await asyncio.sleep(0)
    traffic.stop.set()
    await running
    server.close()
    assert "broke" in book.faults[0]
    assert not book.acknowledged


def test_bounds_allow_no_column_twice() -> None:
    columns = [bound.column for bound in BOUNDS]
    assert len(columns) == len(set(columns))
    assert all(isinstance(bound, Bound) and bound.absolute > 0 for bound in BOUNDS)
