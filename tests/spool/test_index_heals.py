"""The gateway starts with whatever is left of its index."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from router import app, opening
from router.config import Loaded, loads
from router.spool import rebuild
from router.spool.errors import IndexDamaged
from router.spool.index import Filter, Index
from tests.spool.index_samples import audited, fill

CONFIG = """
data_dir: {directory}
http: {{listen: 127.0.0.1:0}}
local: [{{ae_title: ROUTER, listen: 127.0.0.1:0, accept: any}}]
remotes: {{pacs: {{ae_title: PACS, host: 127.0.0.1, port: 9}}}}
spool: {{segment_size: 1MiB, large_instance: 256KiB, spare_segments: 1, low_disk: 1MiB}}
rules: [{{name: all, to: pacs}}]
"""


def _loaded(directory: Path) -> Loaded:
    return loads(CONFIG.format(directory=directory), "test.yaml", {})


def _start_and_stop(directory: Path) -> None:
    async def scenario() -> None:
        gateway = app.Gateway(_loaded(directory), lambda _: _loaded(directory))
        await gateway.start()
        assert gateway.index.instances(Filter(), 5) == []
        await gateway.stop()

    asyncio.run(scenario())


def _names(directory: Path) -> list[str]:
    names = (path.name.partition(".damaged-") for path in directory.glob("index.sqlite*"))
    return sorted(
        name + ("-aside" if aside else "")
        for name, aside, _ in names
        if name != "index.sqlite-sealed"
    )


def test_an_index_met_damaged_at_work_is_made_anew_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with audited(path) as index:
        fill(index, range(1, 3000), "pacs")
    data = bytearray(path.read_bytes())
    page = data.index(b"1.2.3.4.1500") // 8192 * 8192
    data[page : page + 8192] = bytes(8192)
    index = Index.open(path)
    index._db.run("PRAGMA shrink_memory")  # all of it was read just now
    path.write_bytes(data)
    with pytest.raises(IndexDamaged):
        index.account(audit=True)
    index.close()
    _start_and_stop(tmp_path)
    assert _names(tmp_path) == ["index.sqlite", "index.sqlite-aside"]


def test_an_index_met_damaged_by_the_rebuild_ended_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rebuild.rebuild
    calls = 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise IndexDamaged("malformed")
        return real(*args, **kwargs)

    monkeypatch.setattr(opening, "rebuild", failing)
    with audited(tmp_path / "index.sqlite") as index:
        fill(index, [1], "pacs")
    _start_and_stop(tmp_path)
    assert calls == 2
    assert _names(tmp_path) == ["index.sqlite", "index.sqlite-aside"]
