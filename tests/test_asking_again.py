"""An operator's retry, of what a destination has and has not committed."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from router.cli.offline import OfflineDesk
from router.cli.queue import _act
from router.config.versions import Origin
from router.orders import Orders, logged
from router.spool.index import Index
from router.spool.index_types import Changed, DeliveryState, Filter
from tests.spool.index_samples import DEAD, T0, UNCOMMITTED, audited, fill, outcome

TAKEN = (1, 2, 3)

LOADED = SimpleNamespace(
    config=SimpleNamespace(remotes={name: SimpleNamespace(host="h") for name in ("pacs", "vna")})
)


def _filled(index: Index) -> None:
    """Three that were taken and asked for, one that is dead; the same question waits for a day."""
    fill(index, [*TAKEN, 4], "pacs")
    index.settle([outcome(n, "pacs", UNCOMMITTED, status=0) for n in TAKEN])
    index.settle([outcome(4, "pacs", DEAD, status=0xA900)])
    assert index.commitments.ask("pacs", "2.25.1", 10, T0, 4e9) is not None


class Thread:
    async def run(self, work: Any, *args: Any, **more: Any) -> Any:
        await asyncio.sleep(0)
        return work(*args, **more)


async def test_a_retry_has_it_asked_again_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.spool.index_control._AT_ONCE", 2)
    hastened: list[str | None] = []
    with audited(tmp_path / "index.db") as index:
        _filled(index)
        gateway: Any = SimpleNamespace(
            index=index,
            index_thread=Thread(),
            forwarder=SimpleNamespace(refresh=lambda: None),
            gatekeeper=SimpleNamespace(notify=lambda: None),
            proof=SimpleNamespace(hasten=hastened.append),
            loaded=LOADED,
        )
        orders = Orders(gateway)
        assert await orders.retry(Filter(destination="vna"), Origin()) == Changed(0, 0)
        assert hastened == []
        done = await orders.retry(Filter(destination="pacs"), Origin())
        assert done.count == 4
        assert hastened == ["pacs"]
        due = index.commitments.uncommitted("pacs", 10).due_at
        assert due is not None
        assert due < 4e9
        waiting = Filter(destination="pacs", state=DeliveryState.UNCOMMITTED)
        assert (await orders.retry(waiting, Origin())).count == 3


def test_at_rest_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.spool.index_control._AT_ONCE", 2)
    with audited(tmp_path / "index.db") as index:
        _filled(index)
        nothing: Any = None
        desk = OfflineDesk(nothing, nothing, index)
        assert desk.act("retry", {"destination": "pacs"})["changed"] == 4
        due = index.commitments.uncommitted("pacs", 10).due_at
        assert due is not None
        assert due < 4e9
        assert desk.act("drop", {"state": "uncommitted"}, because="no")["changed"] == 3


def test_drop_tells_which_state_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with audited(tmp_path / "index.db") as index:
        fill(index, [1], "pacs")
        index.settle([outcome(1, "pacs", UNCOMMITTED, status=0)])
        nothing: Any = None
        desk = contextlib.nullcontext(OfflineDesk(nothing, nothing, index))
        monkeypatch.setattr("router.cli.queue.open_desk", lambda *_: desk)
        asked: list[str] = []
        monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text))
        _act("drop", None, None, {"study": "9.9.9", "because": "no"}, False, ask=True)
        assert "uncommitted" not in capsys.readouterr().out
        _act("drop", None, None, {"destination": "pacs", "because": "no"}, False, ask=True)
        assert "--state uncommitted" in capsys.readouterr().out
        which = {"destination": "pacs", "because": "no", "state": "uncommitted"}
        _act("drop", None, None, which, False, ask=True)
        assert "1 delivery" in capsys.readouterr().out
        assert asked[-1] == "Drop 1 delivery? It will not be known whether they are kept."


async def test_the_log_has_no_uid_of_an_order(tmp_path: Path) -> None:
    with audited(tmp_path / "index.db") as index:
        _filled(index)
        gateway: Any = SimpleNamespace(
            index=index,
            index_thread=Thread(),
            forwarder=SimpleNamespace(refresh=lambda: None),
            gatekeeper=SimpleNamespace(notify=lambda: None),
            loaded=LOADED,
        )
        which = Filter(destination="pacs", study="1.2.3", sop_instance_uid="1.2.3.4.4")
        with structlog.testing.capture_logs() as lines:
            await Orders(gateway).hold(which, Origin(author="eva"))
    (line,) = lines
    assert line["which"] == {"destination": "pacs", "study": "given", "sop_instance_uid": "given"}
    assert line["who"] == "eva"
    assert logged(Filter(state=DeliveryState.DEAD, ids=tuple(range(1, 99)))) == {
        "state": "dead",
        "ids": "98 given",
    }


@pytest.mark.parametrize("order", ["pause", "resume"])
async def test_an_order_that_was_broken_off_half_way_can_be_given_again(
    tmp_path: Path, order: str
) -> None:
    """The index had it, and the forwarder did not: it answers "no change", and mends that."""
    told: list[str] = []
    with audited(tmp_path / "index.db") as index:
        if order == "pause":
            index.pause("pacs", "", at=T0)
        gateway: Any = SimpleNamespace(
            index=index,
            index_thread=Thread(),
            forwarder=SimpleNamespace(
                pause=lambda name, _: told.append(f"pause {name}"),
                resume=lambda name: told.append(f"resume {name}"),
            ),
            loaded=SimpleNamespace(
                config=SimpleNamespace(remotes={"pacs": SimpleNamespace(host="10.0.0.5")})
            ),
        )
        orders = Orders(gateway)
        if order == "pause":
            assert not await orders.pause("pacs", "", Origin())
        else:
            assert not await orders.resume("pacs", Origin())
    assert told == [f"{order} pacs"]
