"""The orders that send elsewhere, pause and wait: to a gateway that runs, and to one at rest."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perf.processes import wait_until
from router.cli import drain as drain_module
from router.cli.desk import SocketDesk
from router.cli.drain import drain
from router.cli.failures import Failure, Misuse
from router.spool import sqlite
from tests.cli.support import Event, Peer, Site, ok, ok_json, run, write_dicom

COUNT = 4
REFUSED = "1.2.3.4.2"
"""What the archive refuses, always."""


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    def answer(event: Event) -> int:
        return 0xA900 if event.request.AffectedSOPInstanceUID == REFUSED else 0x0000

    with Peer(on_store=answer) as peer:
        yield peer


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Site:
    """At rest: the archive has all but one, which is dead there; the other is down, and one
    instance is held."""
    directory = tmp_path_factory.mktemp("history")
    files = [write_dicom(directory / f"{n}.dcm", n) for n in range(COUNT)]
    files.append(write_dicom(directory / "held.dcm", 100, PatientID="OTHER"))
    site = Site(directory, peer.port)
    with site.running() as served:
        site.send(*files)
        for _ in range(COUNT - 1):
            peer.stored.get(timeout=20)
        _until(site, "archive", {"ready": 0, "dead": 1})
        assert served.end() == 0
    return site


@pytest.fixture(params=["running", "at rest"])
def site(request: pytest.FixtureRequest, history: Site, tmp_path: Path) -> Iterator[Site]:
    copy = Site(tmp_path, history.archive)
    shutil.copytree(history.data_dir, copy.data_dir)
    if request.param == "at rest":
        yield copy
        return
    with copy.running() as served:
        yield copy
        assert served.end() == 0


@contextlib.contextmanager
def _served(site: Site) -> Iterator[None]:
    """While it runs; nothing is started where it does already."""
    if run("status", "-c", site.config).exit_code == 0:
        yield
        return
    with site.running() as served:
        yield
        assert served.end() == 0


def _numbers(site: Site, destination: str) -> dict[str, int]:
    queues = ok_json("queue", "list", "-c", site.config, "-d", destination)["queues"]
    return {q["state"]: q["instances"] for q in queues}


def _until(site: Site, destination: str, wanted: dict[str, int]) -> None:
    """What the peer has was answered a moment before it is noted; each question is an event."""
    for _ in range(2000):
        found = _numbers(site, destination)
        if wanted.items() <= found.items():
            return
    raise AssertionError(found)


def _shown(site: Site, number: int) -> Any:
    return ok_json("instances", "show", "-c", site.config, number)


def _places(site: Site, number: int) -> dict[str, str]:
    return {d["destination"]: d["state"] for d in _shown(site, number)["deliveries"]}


def test_what_is_not_meant_is_refused(site: Site) -> None:
    for args, why in (
        (("queue", "pause", "archiv"), "did you mean 'archive'"),
        (("queue", "pause", "scanner"), "scanner is not a destination"),
        (("queue", "resume", "nowhere"), "nowhere is not a destination"),
        (("queue", "redirect", "--from", "broken"), "Missing option '--to'"),
        (("queue", "redirect", "--from", "broken", "--to", "x"), "x is not a destination"),
        (("queue", "redirect", "--from", "broken", "--to", "broken"), "broken to itself"),
        (
            ("queue", "redirect", "--from", "broken", "--to", "archive", "--state", "delivered"),
            "what is delivered waits for nothing",
        ),
        (("queue", "hasten"), "no condition is given"),
        (("queue", "drain", "archive", "--within", "soon"), "a duration such as"),
        (("instances", "resend", "--to", "archive"), "it is not clear which"),
        (("instances", "resend", "1", "--study", "1.2", "--to", "archive"), "not clear which"),
        (("instances", "resend", "1", "--to", "scanner"), "scanner is not a destination"),
        (("instances", "reroute"), "it is not clear which"),
        (("instances", "reroute", "--all", "7"), "--all goes with no condition"),
        (("account", "--since", "soon"), "a duration such as"),
    ):
        result = run(*args, "-c", site.config)
        assert result.exit_code == 2, (args, result.output)
        assert why in result.stderr, args
    assert ok_json("queue", "list", "-c", site.config)["pauses"] == []
    assert _numbers(site, "broken")["ready"] == COUNT


def test_a_destination_that_nobody_knows_is_no_empty_selection(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "files"
    for args in (
        ("queue", "list"),
        ("queue", "retry"),
        ("queue", "drop", "--yes", "--because", "so"),
        ("instances", "list"),
        ("instances", "resend", "--to", "archive"),
        ("instances", "reroute"),
        ("instances", "export", "--to", to),
        ("instances", "discard", "--yes", "--because", "so"),
    ):
        result = run(*args, "-d", "brocken", "-c", site.config)
        assert result.exit_code == 2, (args, result.output)
        assert "nothing was ever routed to a destination brocken" in result.stderr, args
        assert "did you mean 'broken'" in result.stderr, args
    assert not to.exists()


def test_nor_is_it_for_the_control_socket(history: Site, tmp_path: Path) -> None:
    site = Site(tmp_path, history.archive)
    shutil.copytree(history.data_dir, site.data_dir)
    for old, new in (("  archive: {", "  vault: {"), ("[archive, broken]", "[vault, broken]")):
        assert old in site.text
        site.text = site.text.replace(old, new)
    site.config.write_text(site.text)
    unknown: dict[str, object] = {"destination": "brocken"}
    with site.running() as served:
        desk = SocketDesk(site.data_dir / "control.sock")
        orders: list[Callable[[dict[str, object]], object]] = [
            *(partial(desk.act, action) for action in ("retry", "hasten", "drop", "hold")),
            partial(desk.act, "release"),
            partial(desk.act, "release", to=["vault"]),
            partial(desk.act, "redirect", to="vault"),
            partial(desk.resend, to=["vault"]),
            desk.reroute,
            partial(desk.discard, because="so"),
            partial(desk.queue, limit=10, after=""),
            partial(desk.instances, limit=10, after=""),
        ]
        for order in orders:
            with pytest.raises(Misuse, match="nothing was ever routed to") as refused:
                order(unknown)
            assert "did you mean 'broken'" in refused.value.fix, order
        # What is not configured any more is known as long as the index tells of it.
        gone = {"destination": "archive"}
        assert desk.act("hold", {**gone, "state": "ready"})["changed"] == 0
        assert len(desk.instances(gone, 10, "")["entries"]) == COUNT
        assert desk.act("redirect", gone, to="vault").keys() == {"count", "bytes", "left"}
        assert ok_json("instances", "list", "-c", site.config, "-d", "archive")["entries"]
        # What is configured and has had nothing yet is known as well.
        assert desk.act("hold", {"destination": "vault", "state": "held"})["changed"] == 0
        assert served.end() == 0


def test_every_attempt_is_shown_with_its_answer(site: Site) -> None:
    found = _shown(site, 3)
    (attempt,) = [a for a in found["attempts"] if a["destination"] == "archive"]
    assert (attempt["outcome"], attempt["status"]) == ("dead", "A900")
    assert attempt["association"]
    assert 0 < attempt["seconds"] < 20
    dead = next(d for d in found["deliveries"] if d["destination"] == "archive")
    assert dead["situation"]["state"] == "dead"
    text = ok("instances", "show", "-c", site.config, "3")
    assert "attempts" in text
    assert attempt["association"] in text
    assert _shown(site, 1)["attempts"] == []


def test_a_pause_outlives_a_restart(site: Site, peer: Peer) -> None:
    config = site.config
    said = ok("queue", "pause", "archive", "-c", config, "--because", "upgrade")
    assert said.startswith("archive is paused")
    assert "was paused already" in ok("queue", "pause", "archive", "-c", config)
    text = ok("queue", "list", "-c", config)
    assert "archive is paused by " in text
    assert ": upgrade (" in text
    assert ok_json("instances", "resend", "-c", config, "1", "--to", "archive")["count"] == 1
    (entry,) = ok_json("queue", "show", "-c", config, "-d", "archive", "--id", "1")["entries"]
    assert (entry["situation"]["state"], entry["situation"]["why"]) == ("waiting", "paused")
    assert "upgrade" in entry["situation"]["detail"]
    assert "paused by " in ok("queue", "show", "-c", config, "-d", "archive", "--id", "1")
    with _served(site):
        states = {d["name"]: d for d in ok_json("status", "-c", config)["destinations"]}
        assert states["archive"]["paused"] == "by an operator", "anybody may read that"
        text = ok("status", "-c", config)
        assert "PAUSED" in text
        assert ": upgrade" in text
        stuck = run("queue", "drain", "archive", "-c", config)
        assert stuck.exit_code == 1
        assert "archive is paused by " in stuck.stderr
        assert ": upgrade; 1 delivery left" in stuck.stderr
        assert peer.stored.empty()
        assert ok("queue", "resume", "archive", "-c", config).startswith("archive goes on")
        assert peer.stored.get(timeout=20)[0] == "1.2.3.4.0"
        assert "was not paused" in ok("queue", "resume", "archive", "-c", config)
        drained = ok("queue", "drain", "archive", "-c", config)
        assert drained.startswith("archive is drained")
        assert drained.strip().endswith("1 dead")
        late = run("queue", "drain", "broken", "-c", config, "--within", "50ms")
        assert late.exit_code == 1
        assert f"{COUNT} deliveries of {COUNT} still there; it is down: " in late.stderr


def test_what_waits_for_one_goes_to_the_other(site: Site, peer: Peer) -> None:
    config = site.config
    said = ok(
        *("queue", "redirect", "-c", config, "--from", "broken", "--to", "archive"),
        *("--id", "1", "--id", "3", "--because", "it is gone"),
    )
    assert said.startswith("2 deliveries (")
    # The archive has the first already; the other one was dead there, and goes again.
    assert _places(site, 1) == {"archive": "delivered", "broken": "dropped"}
    assert _places(site, 3)["broken"] == "dropped"
    found = _shown(site, 3)
    reasons = {d["destination"]: d["reason"] for d in found["deliveries"]}
    assert reasons["broken"] == "redirected to archive: it is gone"
    assert found["events"][-1]["action"] == "redirect"
    assert _numbers(site, "broken")["ready"] == COUNT - 2
    again = ok("queue", "redirect", "-c", config, "--from", "broken", "--to", "archive", "--id", 1)
    assert again.startswith("nothing was redirected")
    assert ok_json("account", "-c", config)["balanced"] is True


def test_a_study_is_sent_again_and_elsewhere(site: Site, peer: Peer) -> None:
    config = site.config
    which = ("--study", "1.2.3", "--state", "delivered", "-d", "archive")
    found = ok_json("instances", "resend", "-c", config, *which, "--to", "archive")
    assert (found["count"], found["left"]) == (COUNT - 1, 0)
    with _served(site):
        sent = {peer.stored.get(timeout=20)[0] for _ in range(COUNT - 1)}
    assert sent == {f"1.2.3.4.{n}" for n in (0, 1, 3)}
    left = ok("instances", "resend", "-c", config, "1", "--to", "broken")
    assert "1 delivery left as before" in left


def test_held_ones_are_decided_by_the_rules_of_now(history: Site, tmp_path: Path) -> None:
    site = Site(tmp_path, history.archive)
    shutil.copytree(history.data_dir, site.data_dir)
    result = run("instances", "reroute", "--all", "-c", site.config)
    assert result.exit_code == 1
    assert "start it with dcmrouter serve" in result.stderr
    with site.running() as served:
        said = ok("instances", "reroute", "--all", "-c", site.config)
        assert said.startswith("nothing was sent where the rules say")
        assert "1 instance left as before" in said
        site.config.write_text(site.text.replace('PatientID: "PAT*"', 'PatientID: "*"'))
        ok("reload", "-c", site.config)
        for args in (("--state", "dead"), ("--disposition", "quarantined")):
            refused = run("instances", "reroute", *args, "-c", site.config)
            assert refused.exit_code == 2, refused.output
        assert ok_json("instances", "reroute", "5", "-c", site.config)["count"] == 1
        found = _shown(site, 5)
        assert found["disposition"] == "routed"
        assert {d["destination"] for d in found["deliveries"]} == {"archive", "broken"}
        assert {d["rule"] for d in found["deliveries"]} == {"all"}
        assert found["events"][-1]["action"] == "reroute"
        assert served.end() == 0


def test_what_is_damaged_is_decided_by_nobody(tmp_path: Path) -> None:
    """A rule that discards is told of no attribute that the disk made another: the bytes behind
    what the rules look at are read too."""
    site = Site(tmp_path)
    held = write_dicom(
        tmp_path / "held.dcm", PatientID="OTHER", EncapsulatedDocument=bytes(100_000)
    )
    with site.running() as served:
        site.send(held)
        assert served.end() == 0
    (segment,) = (p for p in site.data_dir.rglob("*.seg") if b"OTHER" in p.read_bytes())
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"OTHER", b"NTHER"))  # a bit of it
    site.config.write_text(
        site.text.replace(
            "rules:", 'rules:\n  - {name: none, when: {not: {PatientID: "OTHER"}}, discard: true}'
        )
    )
    with site.running() as served:
        said = ok("instances", "reroute", "--all", "-c", site.config)
        assert "1 instance left as before" in said
        assert _shown(site, 1)["disposition"] == "held"
        assert served.end() == 0
    assert any(line["event"] == "held instance cannot be read" for line in served.lines)


@pytest.mark.parametrize(
    ("words", "unless"),
    [
        ("called_ae = 'ROUTEP'", 'called_ae: "ROUTER"'),
        ("source = '127.0.0.0'", 'source: "127.0.0.1"'),
    ],
)
def test_what_an_index_with_a_flipped_bit_says_of_a_sender_discards_nothing(
    tmp_path: Path, words: str, unless: str
) -> None:
    """After an end that was not clean; the record of the instance has the words with a check
    sum."""
    site = Site(tmp_path)
    with site.running() as served:
        site.send(write_dicom(tmp_path / "held.dcm", PatientID="OTHER"))
        assert served.end() == 0
    (site.data_dir / "index.sqlite-sealed").unlink()
    with sqlite.connect(site.data_dir / "index.sqlite") as index:
        index.execute(f"UPDATE context SET {words}")
        assert index.changes() == 1
    index.close()
    rule = f"rules:\n  - {{name: none, when: {{not: {{{unless}}}}}, discard: true}}"
    site.config.write_text(site.text.replace("rules:", rule))
    with site.running() as served:
        assert "nothing" in ok("instances", "reroute", "--all", "-c", site.config)
        assert _shown(site, 1)["disposition"] == "held"
        assert served.end() == 0


def test_an_account_since(site: Site) -> None:
    found = ok_json("account", "-c", site.config, "--since", "1h")
    assert (found["received"], found["held"], found["purged"]) == (COUNT + 1, 1, 0)
    assert found["balanced"] is True
    lines = {d["destination"]: d for d in found["destinations"]}
    assert (lines["archive"]["delivered"], lines["archive"]["dead"]) == (COUNT - 1, 1)
    text = ok("account", "-c", site.config, "--since", "1h")
    assert text.startswith("received since ")
    assert "the account balances" in text


# -- slips of the pen


@pytest.mark.parametrize(
    "args",
    [
        ("queue", "list", "-d", "arhcive"),
        ("queue", "show", "-d", "arhcive"),
        ("queue", "retry", "-d", "arhcive"),
        ("queue", "redirect", "--from", "arhcive", "--to", "broken"),
        ("instances", "list", "-d", "arhcive"),
        ("instances", "resend", "-d", "arhcive", "--to", "broken"),
    ],
)
def test_a_destination_that_nobody_knows_is_no_empty_queue(
    site: Site, args: tuple[str, ...]
) -> None:
    result = run(*args, "-c", site.config)
    assert result.exit_code == 2
    assert "did you mean 'archive'?" in result.stderr


def test_an_empty_condition_does_not_mean_everything(site: Site, tmp_path: Path) -> None:
    result = run("instances", "export", "-c", site.config, "--study", "", "--to", tmp_path / "x")
    assert result.exit_code == 2
    assert "study is text" in result.stderr
    assert not list((tmp_path / "x").iterdir())


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_number_that_is_gone_is_no_success(site: Site, more: tuple[str, ...]) -> None:
    """A script that sends a study elsewhere must see that part of it was purged."""
    order = ("instances", "resend", "-c", site.config, "--to", "broken", "--to", "archive", *more)
    result = run(*order, "1", "99", "99")
    assert result.exit_code == 1
    assert "1 of 2 instances not there" in result.stderr
    assert run(*order, "1").exit_code == 0, "left as before is no failure"


def test_an_account_since_before_there_was_time(site: Site) -> None:
    assert "received since 1970-01-01" in ok("account", "-c", site.config, "--since", "9999999d")


def test_who_drops_is_on_record(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    config, why = site.config, ("--because", "looked", "--yes")
    monkeypatch.setenv("SUDO_USER", "eva")
    assert ok_json("queue", "drop", "-c", config, "-d", "broken", "--id", "1", *why)["changed"] == 1
    assert ok_json("queue", "hold", "-c", config, "-d", "broken", "--id", "2")["changed"] == 1
    for number in ("1", "2"):
        (event,) = ok_json("instances", "show", "-c", config, number)["events"]
        assert event["who"].split(",")[0] == "eva"


# -- draining


class _Desk:
    """Queues that follow each other, question by question."""

    running = True

    def __init__(self, ready: list[int], **state: object) -> None:
        self._ready = ready
        self._state = {
            "name": "pacs",
            "up": True,
            "paused": "",
            "opens_at": None,
            "reason": "",
            "limited": "",
        } | state

    def queues(self) -> list[dict[str, object]]:
        now = self._ready.pop(0) if len(self._ready) > 1 else self._ready[0]
        other = {"destination": "vna", "state": "ready", "instances": 99}
        dead = {"destination": "pacs", "state": "dead", "instances": 2}
        return [other, dead, {"destination": "pacs", "state": "ready", "instances": now}]

    def account(self) -> dict[str, object]:
        return {"destinations": [{"destination": "pacs"}, {"destination": "vna"}]}

    def pauses(self) -> list[dict[str, object]]:
        return [{"destination": "pacs", "who": "eva", "reason": ""}]

    def status(self) -> dict[str, object]:
        return {"now": 100.0, "destinations": [self._state]}


class _Time:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _drain(desk: _Desk, limit: float, name: str = "pacs") -> Any:
    time = _Time()
    return drain(desk, name, limit, clock=lambda: time.now, sleep=time.sleep)  # type: ignore[arg-type]


def test_draining_waits_until_nothing_waits() -> None:
    found = _drain(_Desk([5, 5, 2, 0]), 60.0)
    assert (found["sent"], found["dead"], found["seconds"]) == (5, 2, 3 * drain_module.INTERVAL)
    assert _drain(_Desk([0], up=False), 60.0)["seconds"] == 0.0


def test_draining_ends_when_the_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failure, match="after 25 s 7 deliveries of 9 still there; it is down: no"):
        _drain(_Desk([9, 8, 7], up=False, reason="no"), 25.0)
    told = capsys.readouterr().err.splitlines()
    assert told == ["7 deliveries left; it is down: no"] * 2


def test_draining_does_not_wait_for_what_will_not_go() -> None:
    with pytest.raises(Failure, match="pacs is paused by eva"):
        _drain(_Desk([3], paused="by eva"), 60.0)
    with pytest.raises(Misuse, match="nothing was ever routed to a destination pcas"):
        _drain(_Desk([0]), 60.0, "pcas")
    with pytest.raises(Failure, match="vna is not configured"):
        _drain(_Desk([3]), 60.0, "vna")
    with pytest.raises(Failure, match="its schedule opens in 50 s"):
        _drain(_Desk([3], opens_at=150.0), 5.0)
    with pytest.raises(Failure, match="schedule advent is shut, and does not open again"):
        _drain(_Desk([3], up=False, shut="schedule advent is shut"), 5.0)


def indexed(site: Site, count: int) -> bool:
    return len(ok_json("instances", "list", "-c", site.config)["entries"]) == count


def test_the_same_bytes_are_sent_once_however_they_are_sent_again(
    tmp_path: Path, peer: Peer
) -> None:
    site = Site(tmp_path, peer.port)
    file = write_dicom(tmp_path / "held.dcm", 100, PatientID="OTHER")

    def resend(to: str) -> tuple[int, int]:
        done = ok_json("instances", "resend", "1", "2", "--to", to, "--config", site.config)
        return done["count"], done["left"]

    with site.running() as served:
        site.send(file)
        site.send(file)  # held twice: what goes nowhere repeats nothing
        assert wait_until(partial(indexed, site, 2), 20.0), "the index follows the answer"
        assert resend("broken") == (1, 1)
        assert served.end() == 0
    assert resend("archive") == (1, 1), "at rest"
    site.config.write_text(f"{site.text}storage: {{duplicates: send}}\n")
    third = ok_json("instances", "resend", "1", "2", "--to", "archive", "--config", site.config)
    assert (third["count"], third["left"]) == (0, 2), "they wait there"


def test_how_long_a_rule_keeps_an_instance_is_shown_in_words(tmp_path: Path, peer: Peer) -> None:
    site = Site(tmp_path, peer.port)
    rule = "{name: long, when: {PatientID: OTHER}, keep: 30d}"
    site.config.write_text(site.text.replace("rules:\n", f"rules:\n  - {rule}\n"))
    with site.running() as served:
        site.send(write_dicom(tmp_path / "held.dcm", 100, PatientID="OTHER"))
        site.send(write_dicom(tmp_path / "sent.dcm", 101))
        assert served.end() == 0
    found = {
        number: [
            " ".join(line.split())
            for line in ok("instances", "show", number, "--config", site.config).splitlines()
            if line.startswith("keep")
        ]
        for number in (1, 2)
    }
    assert found == {1: ["keep 30 d once it is settled"], 2: []}
