"""A gateway's directory at rest, answered from as the gateway itself would.

Owns opening spool and index under the spool's lock while no gateway runs.  What operators do is
done in the index alone: the gateway goes by it when it starts.  Nothing is received or sent.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

import click

from router.cli.desk import Conditions, File, Json, refused
from router.cli.failures import Failure
from router.config import Config
from router.destinations import peers_of
from router.dicom.part10 import write_file_meta
from router.orders import RULE, check_destinations, check_redirect, user_name
from router.spool.errors import IndexDamaged, SpoolError, SpoolLocked
from router.spool.index import Index
from router.spool.index_duplicates import SameBytes
from router.spool.index_hours import account_since
from router.spool.index_types import Changed, Filter, Rerouted
from router.spool.reader import Reader
from router.spool.rebuild import MADE_ANEW, rebuild
from router.spool.spool import Spool
from router.web import encode
from router.web.commitments import promise
from router.web.sources import ControlError, Redone
from router.web.standing import Standing

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_PIECE = 1 << 20


def _kept(order: F) -> F:
    """What an operator is told to be done is not to be undone by a power cut."""

    @functools.wraps(order)
    def done(desk: "OfflineDesk", *arguments: Any, **more: Any) -> Any:
        result = order(desk, *arguments, **more)
        desk.keep()
        return result

    return cast("F", done)


class OfflineDesk:
    """Implements `Desk` on an open spool and index."""

    running = False

    def __init__(self, config: Config, spool: Spool, index: Index) -> None:
        self._config = config
        self._spool = spool
        self._index = index

    def status(self) -> Json:
        """See `Desk`; there is none."""
        raise self._not_running()

    def reload(self, author: str = "", note: str = "") -> Json:
        """See `Desk`; there is nothing to reload."""
        raise self._not_running()

    def account(self, since: str = "") -> Json:
        """See `Desk`; here the rows are counted as well."""
        if not since:
            return encode.account(_explained(lambda: self._index.account(audit=True)))
        try:
            moment = encode.parse_since(since, time.time())
        except ControlError as refusal:
            raise refused(refusal.error, refusal.fix, refusal.status) from None
        path = self._config.data_dir / "index.sqlite"
        return encode.account_since(_explained(lambda: account_since(path, moment)))

    def pauses(self) -> list[Json]:
        """See `Desk`."""
        return [asdict(pause) for pause in _explained(self._index.pauses)]

    def _standing(self) -> Standing:
        pauses = {pause.destination: pause for pause in _explained(self._index.pauses)}
        return Standing(time.time(), pauses=pauses, running=False)

    def queues(self) -> list[Json]:
        """See `Desk`."""
        return [encode.queue_line(line) for line in _explained(self._index.queue_summary)]

    def queue(self, which: Conditions, limit: int, after: str) -> Json:
        """See `Desk`."""
        first, _, second = after.partition(".")
        cursor = (int(first), int(second)) if after else None
        items = _explained(lambda: self._index.queue_list(_filter(which), limit, cursor))
        following = ".".join(map(str, items[-1].cursor)) if len(items) == limit else ""
        standing = self._standing()
        entries = [encode.queue_item(item, standing) for item in items]
        return {"entries": entries, "next": following}

    def instances(self, which: Conditions, limit: int, after: str) -> Json:
        """See `Desk`."""
        rows = _explained(lambda: self._index.instances(_filter(which), limit, int(after or 0)))
        following = str(rows[-1].ref.id) if len(rows) == limit else ""
        return {"entries": [encode.instance(row, Standing(0.0)) for row in rows], "next": following}

    def promises(self, limit: int, everything: bool) -> list[Json]:
        """See `Desk`."""
        listing = self._index.promises.listing
        return [promise(one) for one in _explained(lambda: listing(limit, everything=everything))]

    def instance(self, number: int) -> Json:
        """See `Desk`."""
        row = _explained(lambda: self._index.instance(number))
        if row is None:
            raise _gone(number)
        return encode.instance(row, self._standing())

    @contextlib.contextmanager
    def file(self, number: int) -> Iterator[File]:
        """See `Desk`."""
        row = _explained(lambda: self._index.instance(number))
        if row is None:
            raise _gone(number)
        meta = row.meta
        head = write_file_meta(
            meta.sop_class_uid,
            meta.sop_instance_uid,
            meta.transfer_syntax_uid,
            source_ae=meta.calling_ae,
        )
        reader = _explained(lambda: self._spool.open_reader(row.ref))
        try:
            yield File(len(head) + reader.length, _pieces(head, reader))
        finally:
            reader.close()

    @_kept
    def act(self, action: str, which: Conditions, **more: object) -> Json:
        """See `Desk`."""
        if action == "redirect":
            return self._redirect({**which, **more})
        given = {**which, **more}
        to = given.pop("to", None)
        because = given.pop("because", "")
        meant = _meant(given)
        index, now = self._index, time.time()
        if to is not None:
            assert isinstance(to, list)
            names = tuple(map(str, to))
            self._check_destinations(names)
            changed = _explained(lambda: index.route_held(meant, names, RULE, at=now, who=_who()))
        elif action == "drop":
            changed = _explained(lambda: index.drop(meant, str(because), at=now, who=_who()))
        else:
            method = {
                "retry": index.retry,
                "hasten": index.hasten,
                "hold": index.hold,
                "release": index.release,
            }[action]
            changed = _explained(lambda: method(meant, at=now, who=_who()))
            if action == "retry":
                changed = self._ask_again(meant, changed)
        return encode.changed(changed)

    def _ask_again(self, which: Filter, retried: Changed) -> Changed:
        """With what is to be asked for again as well."""
        now = time.time()
        asked = _in_steps(
            lambda last: self._index.ask_again(which, at=now, who=_who(), after=last.cursor)
        )
        return Changed(retried.count + asked.count, retried.bytes + asked.bytes)

    @_kept
    def pause(self, destination: str, because: str) -> bool:
        """See `Desk`."""
        self._check_destinations((destination,))
        now = time.time()
        return _explained(lambda: self._index.pause(destination, because, at=now, who=_who()))

    @_kept
    def resume(self, destination: str) -> bool:
        """See `Desk`."""
        if _explained(lambda: self._index.resume(destination, at=time.time(), who=_who())):
            return True
        self._check_destinations((destination,))
        return False

    def _redirect(self, given: Conditions) -> Json:
        conditions = dict(given)
        target, because = str(conditions.pop("to")), str(conditions.pop("because", ""))
        self._check_destinations((target,))
        which, now = _meant(conditions), time.time()
        try:
            check_redirect(which, target)
        except ControlError as refusal:
            raise refused(refusal.error, refusal.fix, refusal.status) from None
        done = _in_steps(
            lambda last: self._index.redirect(
                *(which, target, because),
                at=now,
                who=_who(),
                after=last.cursor,
                same_bytes=self._same_bytes,
            )
        )
        return asdict(done)

    @_kept
    def resend(self, which: Conditions, to: Sequence[str]) -> Json:
        """See `Desk`."""
        self._check_destinations(to)
        meant, now = _meant(which), time.time()
        done = _in_steps(
            lambda last: self._index.resend(
                *(meant, to, RULE),
                at=now,
                who=_who(),
                after=last.after,
                same_bytes=self._same_bytes,
            )
        )
        return asdict(done)

    def reroute(self, which: Conditions) -> Json:
        """See `Desk`; there are no rules in force, and nobody who would say so of those on disk."""
        raise self._not_running()

    @_kept
    def discard(self, which: Conditions, because: str) -> Json:
        """See `Desk`."""
        meant, now = _meant(which), time.time()
        changed = _explained(lambda: self._index.discard_held(meant, because, at=now, who=_who()))
        return encode.changed(changed)

    def keep(self) -> None:
        """Return when what was ordered would survive a power cut.  Raises Failure."""
        _explained(self._index.barrier)

    @property
    def _same_bytes(self) -> SameBytes | None:
        """What tells a duplicate; None where duplicates are sent."""
        suppress = self._config.storage.duplicates == "suppress"
        return self._spool.same_bytes if suppress else None

    def _check_destinations(self, names: Sequence[str]) -> None:
        known = [n for n, remote in self._config.remotes.items() if remote.host is not None]
        try:
            check_destinations(names, known)
        except ControlError as refusal:
            raise refused(refusal.error, refusal.fix, refusal.status) from None

    def _not_running(self) -> Failure:
        return Failure(
            f"no gateway runs on {self._config.data_dir}", "start it with dcmrouter serve"
        )


@contextlib.contextmanager
def open_offline(config: Config, where: str = "") -> Iterator[OfflineDesk]:
    """Spool and index of a configuration, for this process alone until the end.

    ``where`` is said of a directory that is not there.  Raises Failure.
    """
    directory = config.data_dir / "spool"
    if not directory.is_dir():
        raise Failure(
            f"no gateway runs on {config.data_dir}, and nothing was ever received there{where}",
            "start it with dcmrouter serve, or correct data_dir",
        )
    with contextlib.ExitStack() as stack:
        spool = _explained(
            lambda: Spool.open(directory, config.spool, _never_posted, lambda *_: None)
        )
        stack.callback(spool.close)
        index = _explained(lambda: Index.open(config.data_dir / "index.sqlite"))
        stack.callback(index.close)
        # First, as at a start: what is found anew is for these.
        _explained(lambda: index.take_peers(peers_of(config), time.time()))
        suppress = config.storage.duplicates == "suppress"
        report = _explained(lambda: rebuild(spool, index, suppress_duplicates=suppress))
        anew = [f"{MADE_ANEW} ({report.anew} instances)"] if report.anew else []
        for line in (*spool.notes, *anew, *report.damage):
            click.echo(f"dcmrouter: {line}", err=True)
        yield OfflineDesk(config, spool, index)


def _in_steps(step: Callable[[Rerouted], Rerouted]) -> Redone:
    """What the steps of an order did together; ``step`` goes on where the one that it is given
    ended."""
    last = Rerouted(more=True)
    count = size = left = 0
    while last.more:
        last = _explained(functools.partial(step, last))
        count, size, left = count + last.count, size + last.bytes, left + last.left
    return Redone(count, size, left)


def _who() -> str:
    """Who gives an order here, for the record."""
    user = os.environ.get("SUDO_USER", "") or user_name(os.getuid())
    return f"{user}, gateway at rest"


def _never_posted(_: Callable[[], None]) -> None:
    """Nothing is committed, so nothing is told."""


def _pieces(head: bytes, reader: Reader) -> Iterator[bytes]:
    yield head
    while reader.remaining:
        piece = bytearray(min(_PIECE, reader.remaining))
        _explained(lambda piece=piece: reader.read([memoryview(piece)]))  # type: ignore[misc]
        yield bytes(piece)


def _meant(which: Conditions) -> Filter:
    """What is to be acted on; everything only where it is said."""
    given = dict(which)
    everything = given.pop("all", False)
    meant = _filter(given)
    if meant == Filter() and not everything:
        raise refused("no condition is given", "give a condition, or --all", 400)
    return meant


def _filter(which: Conditions) -> Filter:
    try:
        return encode.parse_filter(which, time.time())
    except ControlError as refusal:
        raise refused(refusal.error, refusal.fix, refusal.status) from None


def _gone(number: int) -> Failure:
    return Failure(
        f"there is no instance {number}",
        "it was purged after its last delivery, or never was; see `dcmrouter instances list`",
    )


def _explained(work: Callable[[], T]) -> T:
    try:
        return work()
    except SpoolLocked as error:
        raise Failure(
            f"a gateway has the directory but does not answer: {error}",
            "if it is just starting or stopping, try again",
        ) from None
    except IndexDamaged as error:
        raise Failure(str(error), "start the gateway: it makes the index anew") from None
    except SpoolError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(str(error)) from None
