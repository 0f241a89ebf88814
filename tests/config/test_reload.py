"""Reloads of a gateway in this process: whatever fails in the middle, the old one stays whole."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from router import app
from router.config import Config, durable, load
from router.config.files import Overlay
from router.config.restore import RestoreError
from router.config.versions import Origin
from router.config.watch import QUIET
from router.spool.index_types import DeliveryState, Outcome
from rules import Problems
from tests.spool.index_samples import add, meta, ref

CONFIG = """
data_dir: {directory}/data
http: {{listen: 127.0.0.1:0}}
local:
  - {{ae_title: ROUTER, listen: 127.0.0.1:0, accept: any}}
remotes:
  pacs: {{ae_title: PACS, host: 127.0.0.1, port: 9}}
  vna: {{ae_title: VNA, host: 127.0.0.1, port: 10}}
lists: {{trial: {{file: trial.txt}}}}
spool: {{segment_size: 1MiB, large_instance: 256KiB, spare_segments: 1, low_disk: 1MiB}}
rules:
  - {{name: all, to: pacs}}
  - {{name: trial, when: {{PatientID: {{in: trial}}}}, to: vna}}
"""
LATER = (
    "127.0.0.1:0, accept: any}",
    "127.0.0.1:0, accept: any}\n  - {ae_title: B, listen: '[::1]:0', accept: any}",
)


class Running:
    """A gateway on files that can be changed."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "config.yaml"
        self.file.write_text(CONFIG.format(directory=directory))
        (directory / "trial.txt").write_text("P1\n")
        self.text = self.file.read_text()
        self.reading: Callable[[], None] = lambda: None
        self.applied: Callable[[Config], None] = lambda config: None
        self.gateway = app.Gateway(load(self.file), self.read, lambda c: self.applied(c))
        self.now = 1000.0
        self.gateway.reloader.clock = lambda: self.now

    def read(self, overlay: Overlay) -> app.Loaded:
        self.reading()
        return load(self.file, overlay=overlay)

    @property
    def trial(self) -> Path:
        return self.file.with_name("trial.txt")

    async def looked(self) -> frozenset[str]:
        """The values of the list after some time of peace."""
        for _ in range(3):
            self.now += QUIET
            await self.gateway.reloader.look_at_lists()
        return self.listed

    @property
    def listed(self) -> frozenset[str]:
        """The values in force."""
        rules = self.gateway.loaded.rules
        assert self.gateway.storage.rules is rules
        return rules.lists["trial"]

    def change(self) -> None:
        """Everything that a reload can change: rules, remotes, listeners, lists."""
        text = self.text.replace("to: pacs", "to: vna").replace("port: 9", "port: 11")
        self.file.write_text(text.replace(*LATER))

    @property
    def in_force(self) -> dict[str, Any]:
        gateway = self.gateway
        return {
            "loaded": gateway.loaded.rules.version,
            "rules": gateway.storage.rules.version,
            "storage": gateway.storage.settings,
            "listening": sorted(gateway.listeners.listening),
            "admission": [ae.ae_title for ae in gateway.loaded.config.local],
            "remotes": gateway.loaded.config.remotes,
            "destinations": sorted(gateway.forwarder.snapshot()),
            "at": gateway.configured_at,
        }


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    await running.gateway.start()
    yield running
    await running.gateway.stop()


def once(error: Exception, real: Callable[..., None]) -> Callable[..., None]:
    """Fails the first time, and does what it should from then on."""
    errors = [error]

    def call(*args: Any) -> None:
        if errors:
            raise errors.pop()
        real(*args)

    return call


@pytest.mark.parametrize("how", ["reload", "rollback"])
@pytest.mark.parametrize("part", ["storage", "forwarder", "spool", "process"])
async def test_a_part_that_fails_has_all_others_take_the_old_one_again(
    running: Running, monkeypatch: pytest.MonkeyPatch, part: str, how: str
) -> None:
    gateway = running.gateway
    running.change()
    if how == "rollback":
        assert (await gateway.reloader.reload(Origin())).problems == ()
    before, files = running.in_force, running.file.read_bytes()
    name = {"storage": "apply", "forwarder": "configure", "spool": "apply"}.get(part, "applied")
    owner = running if part == "process" else getattr(gateway, part)
    monkeypatch.setattr(owner, name, once(ValueError("odd"), getattr(owner, name)))
    with structlog.testing.capture_logs() as lines:
        if how == "reload":
            result = await gateway.reloader.reload(Origin())
        else:
            result = await gateway.reloader.rollback("1", Origin())
    assert [line["event"] for line in lines if line.get("exc_info")] == [
        "a configuration could not take effect; this is a fault in dcmrouter"
    ]
    [problem] = result.problems
    assert "could not take effect: ValueError('odd')" in problem.message
    assert running.in_force == before
    assert running.file.read_bytes() == files
    # And the next one is none the worse for it.
    assert (await gateway.reloader.reload(Origin())).problems == ()


async def test_a_reload_takes_all_of_it(running: Running) -> None:
    before = running.in_force
    running.change()
    result = await running.gateway.reloader.reload(Origin("anna", "test", "why"))
    assert result.problems == ()
    assert result.version == 2
    assert set(result.changes) == {
        "locals_added: ('B', '[::1]:0')",
        "remotes_changed: pacs",
        "rules",
    }
    after = running.in_force
    assert after["listening"] == ["127.0.0.1:0", "[::1]:0"]
    assert after["rules"] == after["loaded"] != before["rules"]
    result = await running.gateway.reloader.rollback("1", Origin())
    assert (result.version, result.files) == (3, (str(running.file),))
    assert running.in_force | {"at": 0} == before | {"at": 0}
    assert running.file.read_text() == running.text


async def test_files_that_cannot_be_written_leave_the_present_version_in_force(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = running.gateway
    running.change()
    await gateway.reloader.reload(Origin())
    running.file.write_text(running.text)
    await gateway.reloader.reload(Origin())
    before, files = running.in_force, running.file.read_bytes()
    real = durable.write

    def full(path: Path, *more: Any) -> None:
        if path.parent == running.file.parent:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        with pytest.raises(RestoreError, match=r"Read-only file system") as found:
            await gateway.reloader.rollback("2", Origin())
    assert "change the files where they come from" in found.value.fix
    assert running.in_force == before
    assert running.file.read_bytes() == files


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_keeps_no_reload_back_and_is_counted(
    running: Running, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    gateway = running.gateway
    running.change()
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", refuse)
        result = await gateway.reloader.reload(Origin())
    assert (result.problems, result.version) == ((), 0)
    assert running.in_force["listening"] == ["127.0.0.1:0", "[::1]:0"]
    assert gateway.counters.config.version_failures.value == 1
    assert os.strerror(number) in gateway.reloader.trouble
    assert gateway.reloader.in_force is None
    # As soon as there is room it is kept.
    assert (await gateway.reloader.reload(Origin())).version == 2
    assert gateway.reloader.trouble == ""


async def test_who_waits_for_a_reload_may_leave(running: Running) -> None:
    go = threading.Event()
    running.reading = lambda: bool(go.wait(20)) and None
    running.change()
    waiting = asyncio.create_task(running.gateway.reloader.reload(Origin()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    # The next one comes after it, and finds it done.
    assert (await running.gateway.reloader.reload(Origin())).changes == ()
    assert running.in_force["listening"] == ["127.0.0.1:0", "[::1]:0"]


async def test_three_hundred_hangups_read_the_configuration_three_hundred_times(
    running: Running,
) -> None:
    go, begun = threading.Event(), threading.Event()
    reads: list[str] = []
    reader = running.gateway.reloader

    def reading() -> None:
        reads.append(running.file.read_text())
        begun.set()
        assert go.wait(20)

    running.reading = reading
    for _ in range(300):
        reader.soon(Origin(via="SIGHUP"))
    assert await asyncio.to_thread(begun.wait, 20)
    # One that has begun may have read what is older than this: there is one more.
    running.change()
    for _ in range(300):
        reader.soon(Origin(via="SIGHUP"))
    go.set()
    # Whoever waits for an answer has a reload of their own, which comes last.
    assert (await reader.reload(Origin())).changes == ()
    assert len(reads) == 3
    assert running.in_force["listening"] == ["127.0.0.1:0", "[::1]:0"]
    begun.clear()
    reader.soon(Origin(via="SIGHUP"))
    assert await asyncio.to_thread(begun.wait, 20)


async def test_a_reload_under_way_at_stop_changes_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path)
    await running.gateway.start()
    go = threading.Event()
    running.reading = lambda: bool(go.wait(20)) and None
    running.change()
    reloading = asyncio.create_task(running.gateway.reloader.reload(Origin()))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(running.gateway.stop())
    await asyncio.sleep(0)
    go.set()
    await stopping
    [problem] = (await reloading).problems
    assert "is being stopped" in problem.message


async def test_a_refused_one_is_kept_with_its_problems(running: Running) -> None:
    running.file.write_text(running.text.replace("to: pacs", "to: pac"))
    result = await running.gateway.reloader.reload(Origin("anna"))
    [problem] = result.problems
    listing = await running.gateway.reloader.listing()
    assert listing.versions[-1].problems == (str(problem),)
    assert listing.versions[-1].author == "anna"
    assert listing.in_force == running.gateway.reloader.in_force == listing.versions[0]
    assert running.gateway.counters.config.refused_last
    running.file.write_text(running.text)
    await running.gateway.reloader.reload(Origin())
    assert not running.gateway.counters.config.refused_last
    assert running.gateway.reload_error == ""


async def test_lists_are_taken_by_themselves_and_survive_what_goes_wrong(
    running: Running,
) -> None:
    gateway, trial, look = running.gateway, running.trial, running.looked
    version = gateway.loaded.rules.version
    assert await look() == {"P1"}
    trial.write_text("P1\nP2\n")
    assert await look() == {"P1", "P2"}
    with structlog.testing.capture_logs() as lines:
        trial.write_bytes(b"\xff\xff\xff\n")
        assert await look() == await look() == {"P1", "P2"}
    assert [line["log_level"] for line in lines] == ["warning"]
    assert gateway.counters.config.lists == {"trial": (2, True)}
    assert gateway.loaded.rules.version == version
    # A reload is refused for it, and leaves what is known.
    assert (await gateway.reloader.reload(Origin())).problems != ()
    assert await look() == {"P1", "P2"}
    trial.write_text("P3\n")
    assert await look() == {"P3"}
    assert gateway.counters.config.lists == {"trial": (1, False)}
    assert (await gateway.reloader.reload(Origin())).problems == ()
    assert await look() == {"P3"}


@pytest.mark.parametrize("how", ["reload", "rollback"])
@pytest.mark.parametrize("text", ["", "P2\n"], ids=["empty", "half written"])
async def test_a_reload_took_a_list_while_it_was_being_written(
    running: Running, text: str, how: str
) -> None:
    reloader = running.gateway.reloader
    await running.looked()
    running.change()
    if how == "rollback":
        await reloader.reload(Origin())
    running.trial.write_text(text)
    with structlog.testing.capture_logs() as lines:
        if how == "reload":
            result = await reloader.reload(Origin())
        else:
            result = await reloader.rollback("1", Origin())
    [note] = result.notes
    assert result.problems == ()
    assert "rules" in result.changes
    assert "list 'trial': its file was changed a moment ago; its old values stay until" in note
    assert ("reload once more then if that is meant" in note) is (not text)
    assert [line["note"] for line in lines if "note" in line] == [note]
    assert running.listed == {"P1"}
    # The rest of it is written; the watch takes it when it is quiet.
    with running.trial.open("a") as file:
        file.write("P3\n")
    await reloader.look_at_lists()
    running.now += QUIET - 0.1
    await reloader.look_at_lists()
    assert running.listed == {"P1"}
    assert await running.looked() == set(text.split()) | {"P3"}


async def test_a_list_is_emptied_by_a_reload_and_by_nothing_else(running: Running) -> None:
    reloader = running.gateway.reloader
    await running.looked()
    running.trial.write_text("")
    with structlog.testing.capture_logs() as lines:
        assert await running.looked() == {"P1"}
    assert [line["why"] for line in lines] == [
        "it has no values any more: reload the configuration if that is meant"
    ]
    assert running.gateway.counters.config.lists == {"trial": (1, True)}
    assert (await reloader.reload(Origin())).notes == ()
    assert running.listed == frozenset()
    assert await running.looked() == frozenset()
    assert running.gateway.counters.config.lists == {"trial": (0, False)}


async def test_a_reload_takes_a_quiet_list_and_one_that_is_read_in_another_way(
    running: Running,
) -> None:
    reloader = running.gateway.reloader
    await running.looked()
    running.trial.write_text("P2\n")
    assert len((await reloader.reload(Origin())).notes) == 1
    running.now += QUIET
    assert (await reloader.reload(Origin())).notes == ()
    assert running.listed == {"P2"}
    # What another column gave would be no values of this list.
    running.trial.write_text("id,name\nP3,N3\n")
    running.file.write_text(running.text.replace("trial.txt}", "trial.txt, column: id}"))
    assert (await reloader.reload(Origin())).notes == ()
    assert running.listed == {"P3"}


def test_a_reader_that_is_asked_for_other_contents_gives_them(tmp_path: Path) -> None:
    running = Running(tmp_path)
    real = Path(os.path.realpath(running.file))
    with pytest.raises(Problems, match="pac"):
        running.read({real: running.text.replace("to: pacs", "to: pac").encode()})


async def test_a_reader_that_breaks_down_leaves_the_old_one_in_force(running: Running) -> None:
    """Once a RecursionError ended the task of the reload, and nobody was told."""
    before = running.gateway.loaded

    def broken() -> None:
        raise RecursionError("too deep")

    running.reading = broken
    result = await running.gateway.reloader.reload(Origin())
    assert [p.message for p in result.problems] == ["cannot be read: RecursionError('too deep')"]
    assert running.gateway.loaded is before
    assert "too deep" in running.gateway.reload_error


async def test_what_the_host_of_before_has_is_sent_to_the_new_one(running: Running) -> None:
    index, run = running.gateway.index, running.gateway.index_thread.run

    def come(number: int) -> int:
        """The same bytes as before; how many are to be sent to the destination."""
        what = meta(number, "pacs", uid="1.2.3.4", at=time.time())
        return add(index, (ref(number, crc=1), what)).deliveries.get("pacs", 0)

    def delivered() -> None:
        index.settle([Outcome(1, "pacs", DeliveryState.DELIVERED, time.time())])

    await run(come, 1)
    await run(delivered)
    assert await run(come, 2) == 0
    running.file.write_text(running.text.replace("port: 9", "port: 11"))
    assert (await running.gateway.reloader.reload(Origin())).problems == ()
    assert await run(come, 3) == 1
