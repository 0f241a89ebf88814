"""What a command on a directory at rest finds when it opens it: another host, a lost index."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from router.cli.failures import Failure
from router.cli.offline import open_offline
from router.spool import system
from router.spool.index_types import DeliveryState
from router.spool.index_types import Outcome as Ended
from tests.spool.index_samples import state
from tests.spool.spool_samples import Loop, Rig, meta, payload, settings


def test_what_it_brings_to_the_index_is_for_the_host_of_now(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Loop(), settings()).start()
    rig.index.take_peers({"pacs": ("10.0.0.1", 104, "PACS")}, 1.0)
    data, what = payload(1, 5000), meta(1, "pacs")
    first = rig.commit(data, what).kept
    rig.feed()
    rig.index.settle([Ended(first.id, "pacs", DeliveryState.DELIVERED, 1.0)])
    second = rig.commit(data, what).kept
    rig.close()
    with open_offline(_config(tmp_path)) as desk:
        assert state(desk._index, second.id, "pacs") is DeliveryState.READY


def test_an_index_that_is_gone_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(tmp_path, Loop(), settings()).start()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    rig.close()
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    for told in (1, 0):
        with open_offline(_config(tmp_path)):
            pass
        assert capsys.readouterr().err.count("may be sent again") == told


@pytest.mark.parametrize("order", ["drop", "pause", "resume", "resend"])
def test_an_order_that_may_not_outlive_a_power_cut_is_not_told_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    rig = Rig(tmp_path, Loop(), settings()).start()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    rig.close()
    with open_offline(_config(tmp_path)) as desk:
        desk.pause("pacs", "test")

        def fails(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        orders: dict[str, Callable[[], object]] = {
            "drop": lambda: desk.act("drop", {"destination": "pacs"}, because="test"),
            "pause": lambda: desk.pause("pacs", "again"),
            "resume": lambda: desk.resume("pacs"),
            "resend": lambda: desk.resend({"ids": [1]}, ["pacs"]),
        }
        with monkeypatch.context() as patch:
            patch.setattr(system, "sync_data", fails)
            with pytest.raises(Failure, match="cannot sync"):
                orders[order]()
        orders[order]()


def _config(directory: Path) -> Any:
    remote = SimpleNamespace(host="10.0.0.2", port=104, ae_title="PACS")
    return SimpleNamespace(
        data_dir=directory,
        spool=settings(),
        storage=SimpleNamespace(duplicates="suppress"),
        remotes={"pacs": remote},
    )
