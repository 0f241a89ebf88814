"""A configuration in place of another, while the gateway runs: all of it or nothing.

Owns the order of the steps of a reload and of going back to a version, that one is done at a
time, the keeping of versions, and the lists that change by themselves.  What each part of the
gateway does with a new configuration is its own matter (`Gateway.apply`).
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from router.config import Loaded, Problem, Problems, diff, restart_problems
from router.config.changes import names_of
from router.config.compare import Difference, compare, find
from router.config.restore import RestoreError, Step, finish, restore, reverse
from router.config.rollback import (
    Prepared,
    Read,
    files_of,
    kept_words,
    named,
    prepare,
    put,
    words,
)
from router.config.versions import (
    Added,
    File,
    Listing,
    Origin,
    Outcome,
    Version,
    Versions,
    VersionsError,
)
from router.config.watch import QUIET, ListWatch, Seen

if TYPE_CHECKING:
    from router.app import Gateway

T = TypeVar("T")

LIST_INTERVAL = 1.0
"""Seconds between two looks at the files of lists."""

_LAST_RELOAD = 10.0
"""Seconds for a reload that is under way at stop."""

_log = structlog.get_logger("reload")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of it: ``problems`` are empty when it took effect.

    ``version`` is the number under which it is kept, 0 when it could not be kept.  ``files`` are
    those that were written or removed, when a version was gone back to.  ``notes`` are what has
    not taken effect yet, and what became of an edit that was in the way.
    """

    changes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    version: int = 0
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Reloader:
    """Changes the configuration of one gateway.

    ``read`` reads the files anew; blocking, may raise Problems.  ``clock`` says for how long files
    of lists are quiet, in seconds.
    """

    def __init__(
        self, gateway: "Gateway", read: Read, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = gateway.loaded.config
        self.versions = Versions(config.data_dir / "versions", config.versions.keep)
        self.in_force: Version | None = None
        self.trouble = ""
        self.clock = clock
        self._gateway = gateway
        self._read = read
        self._busy = asyncio.Lock()
        self._asked = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._watch = ListWatch(gateway.loaded.list_sources(), gateway.loaded.lists)
        self._watch_trouble = ""

    @property
    def _file(self) -> Path:
        return Path(self._gateway.loaded.file)

    async def start(self) -> None:
        """Keep what the gateway was started with, and look at lists from now on."""
        loaded = self._gateway.loaded
        self._gateway.counters.config.started(loaded.rules.version, time.time())
        await self._keep(files_of(loaded), "took effect", loaded.rules.version, Origin(via="start"))
        self._watching = asyncio.create_task(self._watch_lists(), name="lists")

    async def close(self) -> None:
        """When what is under way has ended."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LAST_RELOAD)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def soon(self, origin: Origin) -> None:
        """Reload, with nobody waiting for it; one that has not begun yet does for this as well."""
        if not self._asked:
            self._asked = True
            self._own(self._reload(origin, asked=True))

    async def reload(self, origin: Origin) -> Result:
        """The files anew, all or nothing.  Goes on when whoever waits for it goes away."""
        return await asyncio.shield(self._own(self._reload(origin)))

    async def rollback(self, text: str, origin: Origin) -> Result:
        """Put a version's files back and take them, all or nothing; `Versions.find` has ``text``.

        Raises VersionsError or RestoreError; nothing has changed then, unless it says so.
        """
        return await asyncio.shield(self._own(self._rollback(text, origin)))

    def _own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- one after the other -------------------------------------------------------------------

    async def _reload(self, origin: Origin, *, asked: bool = False) -> Result:
        async with self._busy:
            if asked:
                self._asked = False
            try:
                await self._finish()
                read = await asyncio.to_thread(self._read, {})
                loaded, notes = await asyncio.to_thread(self._quiet, read)
                changes, _ = await self._take(loaded)
            except RestoreError as error:
                problem = Problem(str(self._file), 0, 0, str(error), error.fix)
                return await self._refused([problem], origin)
            except Problems as error:
                return await self._refused(error.problems, origin, error.texts)
            except Exception as error:  # noqa: BLE001 - a fault of ours: the old one stays
                _log.exception("the configuration cannot be read; this is a fault in dcmrouter")
                text = f"cannot be read: {error!r}"
                problem = Problem(str(self._file), 0, 0, text, "see the log")
                return await self._refused([problem], origin)
            _log.info("configuration reloaded", changes=", ".join(changes) or "none")
            for note in notes:
                _log.warning("configuration", note=note)
            files, version = files_of(loaded), loaded.rules.version
            number = await self._keep(files, "took effect", version, origin)
            return Result(changes, version=number, notes=notes)

    async def _rollback(self, text: str, origin: Origin) -> Result:
        async with self._busy:
            await self._finish()
            version = await asyncio.to_thread(find, self.versions, text)
            try:
                prepared = await asyncio.to_thread(
                    prepare, self._file, self.versions, version, self._read
                )
                loaded, notes = await asyncio.to_thread(self._quiet, prepared.loaded)
                changes, kept = await self._take(loaded, prepared, origin)
            except Problems as error:
                for problem in error.problems:
                    _log.error("not gone back", version=version.number, problem=str(problem))
                return Result(problems=tuple(error.problems))
            _log.info(
                "went back to a version",
                version=version.number,
                files=len(prepared.steps),
                changes=", ".join(changes) or "none",
            )
            for note in notes:
                _log.warning("configuration", note=note)
            rules = prepared.loaded.rules.version
            number = await self._keep(
                prepared.files, "rolled back", rules, origin, of=version.number
            )
            notes = (*kept_words(kept), *notes)
            return Result(changes, version=number, files=prepared.changed, notes=notes)

    async def _finish(self) -> None:
        if said := await asyncio.to_thread(finish, self._file):
            _log.warning("configuration", note=said)

    async def _refused(
        self,
        problems: Sequence[Problem],
        origin: Origin,
        files: Mapping[str, bytes] | None = None,
    ) -> Result:
        """``files`` are what was read of it, when it was read."""
        texts = [str(problem) for problem in problems]
        self._gateway.reload_error = "\n".join(texts)
        self._gateway.counters.config.refused()
        for text in texts:
            _log.error("configuration not reloaded", problem=text)
        if files:
            kept = named(self._file, files.items())
            await self._keep(kept, "refused", "", origin, problems=texts)
        return Result(problems=tuple(problems))

    async def _take(
        self, loaded: Loaded, prepared: Prepared | None = None, origin: Origin | None = None
    ) -> tuple[tuple[str, ...], int]:
        """Let it take effect, its files put in their places before: what changed, and the result of
        `put`.  Raises Problems or RestoreError when the one in force stays."""
        gateway = self._gateway
        if gateway.stopping:
            raise Problems([Problem(loaded.file, 0, 0, "the gateway is being stopped")])
        old = gateway.loaded
        changes = diff(old.config, loaded.config)
        if problems := restart_problems(changes, loaded):
            raise Problems(problems)
        try:
            await gateway.listeners.open(ae.listen for ae in loaded.config.local)
        except OSError as error:
            raise Problems([Problem(loaded.file, 0, 0, str(error))]) from error
        done: tuple[Step, ...] = ()
        kept = 0
        try:
            if prepared is not None:
                kept = await asyncio.to_thread(
                    put,
                    self._file,
                    self.versions,
                    prepared,
                    self._read,
                    origin or Origin(),
                    time.time(),
                )
                done = prepared.steps
            self._apply(loaded)
        except BaseException:
            gateway.listeners.shut_all_but({ae.listen for ae in old.config.local})
            if done:
                await asyncio.to_thread(restore, self._file, reverse(done))
            raise
        return names_of(changes), kept

    def _apply(self, loaded: Loaded) -> None:
        """Every part takes it, or every part has the old one again."""
        gateway = self._gateway
        old = gateway.loaded
        try:
            gateway.apply(loaded)
        except Exception as error:
            _log.exception("a configuration could not take effect; this is a fault in dcmrouter")
            gateway.apply(old)
            text = f"it could not take effect: {error!r}; see the log"
            raise Problems([Problem(loaded.file, 0, 0, text)]) from error
        gateway.reload_error = ""
        gateway.configured_at = time.time()
        gateway.counters.config.applied(loaded.rules.version, gateway.configured_at)
        self._watch = ListWatch(loaded.list_sources(), loaded.lists, self._watch)
        for warning in loaded.warnings:
            _log.warning("configuration", warning=str(warning))

    # -- versions ------------------------------------------------------------------------------

    async def _keep(
        self,
        files: Sequence[File],
        outcome: Outcome,
        rules: str,
        origin: Origin,
        *,
        of: int = 0,
        problems: Sequence[str] = (),
    ) -> int:
        """Its number among the versions, 0 when it could not be kept: nothing depends on that."""
        self.versions.keep = self._gateway.loaded.config.versions.keep

        def add() -> Added:
            return self.versions.add(
                files,
                outcome=outcome,
                rules=rules,
                at=time.time(),
                origin=origin,
                of=of,
                problems=problems,
            )

        if outcome != "refused":
            self.in_force = None
        try:
            added = await asyncio.to_thread(add)
        except OSError as error:
            self.trouble = f"the configuration is not kept as a version: {words(error)}"
            self._gateway.counters.config.version_failures.value += 1
            _log.warning(self.trouble)
            return 0
        self.trouble = added.trouble
        if added.trouble:
            _log.warning(added.trouble)
        if outcome != "refused":
            self.in_force = added.version
        return added.version.number

    async def listing(self) -> Listing:
        """The versions that there are.  Raises VersionsError."""
        return await asyncio.to_thread(_listed, self.versions)

    async def difference(self, old: str, new: str) -> Difference:
        """See `compare`."""
        return await asyncio.to_thread(compare, self._file, self.versions, old, new, self._read)

    async def files(self, text: str) -> tuple[Version, tuple[File, ...]]:
        """A version and its files.  Raises VersionsError."""

        def look() -> tuple[Version, tuple[File, ...]]:
            version = find(self.versions, text)
            return version, self.versions.files(version.number)

        return await asyncio.to_thread(look)

    # -- lists ---------------------------------------------------------------------------------

    def _quiet(self, loaded: Loaded) -> tuple[Loaded, tuple[str, ...]]:
        """What was read, but with the values in force of lists whose files may be half written
        just now, and the notes that say so; the watch takes those when they are quiet."""
        old = self._gateway.loaded
        values, notes = dict(loaded.lists), []
        for name, source in loaded.list_sources().items():
            known = old.rules.lists.get(name)
            if known is None or known == values[name]:
                continue
            same = old.config.lists.get(name) == loaded.config.lists[name]
            # Values that another column gave are worse than half of those that are wanted.
            if not same or self._watch.settled(source.path, self.clock()):
                continue
            note = (
                f"list {name!r}: its file was changed a moment ago; its old values stay until it "
                f"has been quiet for {QUIET:.0f} s"
            )
            if not values[name]:
                note += "; it has no values now: reload once more then if that is meant"
            values[name] = known
            notes.append(note)
        if not notes:
            return loaded, ()
        return replace(loaded, rules=loaded.rules.with_lists(values), lists=values), tuple(notes)

    async def _watch_lists(self) -> None:
        while True:
            await asyncio.sleep(LIST_INTERVAL)
            try:
                await self.look_at_lists()
            except Exception as error:  # noqa: BLE001 - the watch ends with the gateway, not before
                if repr(error) != self._watch_trouble:
                    self._watch_trouble = repr(error)
                    _log.exception("lists could not be looked at")

    async def look_at_lists(self) -> None:
        """Take the values of lists whose files have changed."""
        watch = self._watch
        if not watch.values:
            return
        seen = await asyncio.to_thread(watch.look, self.clock())
        async with self._busy:
            if watch is not self._watch:
                return  # a reload has read all of them meanwhile
            if seen.changed:
                await self._take_lists(watch.values, seen)
            for name, why in seen.failed.items():
                _log.warning("a list is not taken: its old values stay", list=name, why=why)
            self._gateway.counters.config.lists = {
                name: (len(values), name in seen.trouble) for name, values in watch.values.items()
            }

    async def _take_lists(self, values: Mapping[str, frozenset[str]], seen: Seen) -> None:
        gateway = self._gateway
        rules = await asyncio.to_thread(gateway.loaded.rules.with_lists, dict(values))
        gateway.apply_rules(replace(gateway.loaded, rules=rules))
        for name, new in seen.changed.items():
            _log.info("list reloaded", list=name, values=len(new))


def _listed(versions: Versions) -> Listing:
    try:
        return versions.listing()
    except OSError as error:
        raise VersionsError(f"the versions cannot be read: {words(error)}") from error
