"""Every call in turn fails: what was acknowledged stays, and all goes on when the fault is gone.

``DCMROUTER_EVERY_CALL=1`` plays every fault at every call, which takes two minutes; by default
the first call of each kind fails, and of the rarer faults a sample is played.

``DCMROUTER_WRITE_TABLES=1`` writes the table of ``docs/reference/disk-errors.md`` anew.
"""

import errno
import itertools
import os
import re
import shutil
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from router.spool import keeper as keeper_module
from router.spool.errors import SpoolError
from tests.spool.faults import Call, Fault, Seam
from tests.spool.scenario import Life, Truth, lost, play, recovers
from tests.spool.spool_samples import Loop

pytestmark = pytest.mark.timeout(1800)

EVERY = os.environ.get("DCMROUTER_EVERY_CALL") == "1"
WRITE = os.environ.get("DCMROUTER_WRITE_TABLES") == "1"
SAMPLE = 12
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "disk-errors.md"
_NOT_MADE = "the call was not made"
_MORE_RUNS = 3
_UNREAD = re.compile("cannot be read")
"""What the log says at a start of what another start may read: the one fault that needs one."""


@dataclass
class Run:
    """What one run of the scenario came to."""

    fault: Fault | None
    calls: list[Call] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refused: int = 0

    def __str__(self) -> str:
        what = "" if self.fault is None else f"{self.fault.at} ({self.fault})"
        return "\n    ".join([what, *self.problems, f"told: {self.told}"])


class Player:
    """Plays the scenario, each time in a directory of its own."""

    def __init__(self, base: Path, loop: Loop) -> None:
        self._base = base
        self._loop = loop
        self._numbers = itertools.count()
        self.dead_threads: list[str] = []

    def play(self, fault: Fault | None = None) -> Run:
        run = self._once(fault)
        for _ in range(_MORE_RUNS):  # threads that are kept waiting write more at once
            if run.problems != [_NOT_MADE]:
                break
            run = self._once(fault)
        return run

    def _once(self, fault: Fault | None) -> Run:
        home = self._base / f"run{next(self._numbers)}"
        home.mkdir()
        seam, run = Seam(home, fault), Run(fault)
        try:
            self._play(home, seam, run)
        except Exception as error:  # noqa: BLE001 - told with the others
            run.problems.append("".join(traceback.format_exception(error)[-3:]))
        run.calls = seam.calls
        run.problems += self.dead_threads
        self.dead_threads.clear()
        if fault is not None and not seam.struck:
            run.problems.append(_NOT_MADE)
        shutil.rmtree(home, ignore_errors=True)
        return run

    def _play(self, home: Path, seam: Seam, run: Run) -> None:
        truth = Truth()
        with seam.watching():
            with self._life(home, seam, run, truth, "starting") as life:
                play(life, seam)
                if seam.struck:
                    seam.mend()
                    seam.phase = "the fault is gone"
                    run.problems += recovers(life, home)
                seam.phase = "stopping"
            with self._life(home, seam, run, truth, "starting again") as life:
                seam.phase = "the end"
                seam.mend()
                if not any(_UNREAD.search(text) for _, text in life.told):
                    self._check(life, home, run)
                    return
            with self._life(home, seam, run, truth, "starting once more") as life:
                self._check(life, home, run)

    def _check(self, life: Life, home: Path, run: Run) -> None:
        run.problems += recovers(life, home) + lost(life)
        differences = life.index.account(audit=True).differences
        if differences:
            run.problems.append(f"the account does not balance: {differences}")

    @contextmanager
    def _life(self, home: Path, seam: Seam, run: Run, truth: Truth, phase: str) -> Iterator[Life]:
        """A start that fails is an outcome; the next one, without the fault, must not fail."""
        seam.phase = phase
        try:
            life = Life(home, self._loop, truth)
        except SpoolError as error:
            run.told.append(("start", str(error)))
            seam.mend()
            life = Life(home, self._loop, truth)
        try:
            yield life
        finally:
            life.close()
            run.told += life.told
            run.problems += life.strays
            run.refused += sum(who == "peer" for who, _ in life.told)


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """Without real syncs, in memory where there is a place for it: no test here cuts the power."""
    shared = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    loop = Loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        patch.setattr(os, "fdatasync", os.fstat)
        patch.setattr(keeper_module, "_TRY_AGAIN", 1)
        made = Player(base, loop)
        patch.setattr(
            threading,
            "excepthook",
            lambda args: made.dead_threads.append(f"{args.thread} died of {args.exc_value!r}"),
        )
        yield made
    loop.close()
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def calls(player: Player) -> list[Call]:
    """Those of a run in which nothing fails."""
    run = player.play()
    assert (run.problems, run.told) == ([], [])
    return [call for call in run.calls if call.phase not in ("the end", "the fault is gone")]


def _first(calls: Sequence[Call]) -> list[Call]:
    """The first of each kind in each phase; or all of them."""
    return [call for call in calls if EVERY or call.number == 1]


def _sampled(calls: Sequence[Call]) -> list[Call]:
    """Spread over the whole scenario; or all of them."""
    step = 1 if EVERY else max(1, len(calls) // SAMPLE)
    return list(calls[step // 2 :: step])


def _system(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call.what not in ("execute", "connect")]


def _sqlite(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call.what in ("execute", "connect")]


def _check(runs: Sequence[Run]) -> None:
    assert runs
    bad = [run for run in runs if run.problems]
    assert not bad, f"{len(bad)} of {len(runs)} runs:\n" + "\n".join(map(str, bad[:10]))


# -- calls of the system ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(player: Player, calls: list[Call]) -> list[Run]:
    """The first call of each kind fails with EIO."""
    return [player.play(Fault(call)) for call in _first(_system(calls))]


def test_every_call_of_the_system_fails_once(broken: list[Run]) -> None:
    _check(broken)
    # Not a scenario that nothing can disturb.
    assert sum(run.refused > 0 for run in broken) > 15
    assert sum(any(who == "start" for who, _ in run.told) for run in broken) > 15


def test_a_refusal_says_what_was_being_done_and_why(broken: list[Run]) -> None:
    for run in broken:
        for who, text in run.told:
            if who == "log":
                continue
            assert re.search(r"[a-z]{4,}.*: ", text), (who, text)
            assert os.strerror(errno.EIO) in text, (who, text)


def test_a_sync_that_failed_is_not_answered_with_success(broken: list[Run]) -> None:
    # Nothing is missed later: the page cache has the bytes until the power fails.
    kept = ("a segment", "a large file", "spool/large")
    syncs = [
        run
        for run in broken
        if run.fault is not None
        and run.fault.at.phase.startswith("receiving")
        and run.fault.at.what in ("sync", "write and sync")
        and run.fault.at.where in kept
    ]
    assert len(syncs) > 5
    assert all(run.refused for run in syncs), list(map(str, syncs))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
def test_want_of_space_or_descriptors_is_told_as_such(
    player: Player, calls: list[Call], code: int
) -> None:
    takes = {"create", "open"}
    if code == errno.ENOSPC:
        takes = {"write", "write and sync", "allocate", "create", "mkdir", "rename"}
    wanted = [call for call in _first(_system(calls)) if call.what in takes]
    runs = [player.play(Fault(call, code)) for call in (wanted if EVERY else wanted[::2])]
    _check(runs)
    refusals = [text for run in runs for who, text in run.told if who == "peer"]
    assert refusals
    assert all(text.startswith("A700: ") for text in refusals), refusals


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC])
def test_a_disk_takes_nothing_any_more_for_a_while(
    player: Player, calls: list[Call], code: int
) -> None:
    changing = [call for call in _system(calls) if call.what not in ("read", "stat", "close")]
    runs = [player.play(Fault(call, code, lasting=True)) for call in _sampled(changing)]
    _check(runs)
    assert any(run.refused > 1 for run in runs)


def test_a_call_does_its_work_and_says_that_it_failed(player: Player, calls: list[Call]) -> None:
    late = [call for call in _system(calls) if call.what not in ("open", "create", "remove")]
    _check([player.play(Fault(call, late=True)) for call in _sampled(late)])


def test_a_write_leaves_half_of_its_bytes_and_fails(player: Player, calls: list[Call]) -> None:
    writes = [call for call in _system(calls) if call.what.startswith("write")]
    _check([player.play(Fault(call, half=True)) for call in _sampled(writes)])


def test_every_write_takes_but_half_of_what_it_is_given(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = player.play()
    monkeypatch.setattr(Seam, "short_writes", True)
    short = player.play()
    assert (short.problems, short.told) == ([], [])
    writes = [sum(c.what.startswith("write") for c in run.calls) for run in (whole, short)]
    assert writes[1] > writes[0] + 20


# -- SQLite ----------------------------------------------------------------------------------------

SQLITE_CODES = {
    "disk I/O error": apsw.SQLITE_IOERR_WRITE,
    "database or disk is full": apsw.SQLITE_FULL,
    "database is locked": apsw.SQLITE_BUSY,
    "readonly database": apsw.SQLITE_READONLY,
    "malformed": apsw.SQLITE_CORRUPT,
}


@pytest.fixture(scope="module")
def broken_index(player: Player, calls: list[Call]) -> list[Run]:
    """The first statement of each kind fails, the five errors by turns; or with each of them."""
    codes = list(SQLITE_CODES.values())
    runs = []
    for number, call in enumerate(_first(_sqlite(calls))):
        for code in codes if EVERY else [codes[number % len(codes)]]:
            runs.append(player.play(Fault(call, code)))  # noqa: PERF401
    return runs


def test_every_statement_fails_once(broken_index: list[Run]) -> None:
    _check(broken_index)
    assert all(run.refused == 0 for run in broken_index), "an answer waited for the index"
    told = [text for run in broken_index for _, text in run.told]
    for text in SQLITE_CODES:
        assert any(text in line for line in told), text


def test_a_statement_does_its_work_and_says_that_it_failed(
    player: Player, calls: list[Call]
) -> None:
    # But for the end of a purge: then files stay until the next start sweeps them away.
    late = [c for c in _sqlite(calls) if (c.phase, c.what, c.where) != _PURGED]
    runs = [player.play(Fault(c, apsw.SQLITE_BUSY, late=True)) for c in _sampled(late)]
    _check(runs)
    feeding = Call("indexing", "execute", "COMMIT", 3)
    assert feeding in calls
    _check([player.play(Fault(feeding, apsw.SQLITE_BUSY, late=True))])


_PURGED = ("upkeep", "execute", "COMMIT")


# -- the table -------------------------------------------------------------------------------------

_BEGIN, _END = "<!-- begin: made by tests/spool/test_system_errors.py -->", "<!-- end -->"
_WHO = {
    "start": "does not start",
    "peer": "that instance is refused",
    "readiness": "`/readyz` says no",
    "upkeep": "upkeep is put off",
    "supply": "spare segments are put off",
    "deferred": "that delivery is put off",
    "queue": "the queue is put off",
    "dead letter": "dead letter",
    "log": "log",
    "stop": "log, at stop",
}


def _outcome(run: Run) -> str:
    lines = []
    for who, text in run.told:
        text = re.sub(r"/\S*/run\d+", "data_dir", text)
        text = re.sub(r"\b0*\d+\.seg\b", "N.seg", text)
        text = re.sub(r"\b[0-9a-f]{16}\.dat\b", "ID.dat", text)
        text = re.sub(r"\b(instances?|generation) \d+", r"\1 N", text)
        text = re.sub(r"\[Errno \d+\] ", "", text)
        # As often as there were groups: the thread that writes them may be kept waiting.
        text = re.sub(r"(writing to segment N\.seg: [^;]*)(; \1)+", r"\1", text)
        line = f"{_WHO[who]}: {text}"
        if line not in lines:
            lines.append(line)
    return "<br>".join(lines[:2]) or "nobody notices"


def _rows(runs: Sequence[Run]) -> list[str]:
    """A row for each phase and outcome, with the calls that lead to it."""
    rows: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        assert run.fault is not None
        call = run.fault.at
        if call.number == 1:
            what = f"{call.what} {call.where}".removeprefix("execute ")
            rows.setdefault((call.phase, _outcome(run)), []).append(what)
    return [f"| {phase} | {', '.join(w)} | {text} |" for (phase, text), w in rows.items()]


def test_the_table_says_what_happens(broken: list[Run], player: Player, calls: list[Call]) -> None:
    statements = [player.play(Fault(c, apsw.SQLITE_IOERR_WRITE)) for c in _index_calls(calls)]
    _check(statements)
    head = ["", "| while | the call that fails | what happens |", "|---|---|---|"]
    table = "\n".join([*head, *_rows(broken), *_rows(statements), ""])
    page = PAGE.read_text()
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    wanted = f"{before}{_BEGIN}\n{table}\n{_END}{after}"
    if WRITE:
        PAGE.write_text(wanted)
    assert page == wanted or WRITE, "make it anew with DCMROUTER_WRITE_TABLES=1"


def _index_calls(calls: Sequence[Call]) -> list[Call]:
    """One statement of each kind and phase; a start makes many that end alike."""
    verbs = ("BEGIN", "COMMIT", "INSERT instance", "DELETE instance", "UPDATE", "SELECT tally")
    return [
        call
        for call in _sqlite(calls)
        if call.number == 1
        and (call.what == "connect" or call.where.startswith(verbs))
        and (call.phase != "starting again" or call.what == "connect")
    ]
