"""A gateway's directory at rest, answered from as the gateway itself would.

Owns opening spool and index under the spool's lock while no gateway runs.  What operators do is
done in the index alone: the gateway goes by it when it starts.  Nothing is received or sent.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from router.cli.desk import Conditions, File, Json, refused
from router.cli.failures import Failure
from router.config import Config
from router.dicom.part10 import write_file_meta
from router.spool.errors import IndexDamaged, SpoolError, SpoolLocked
from router.spool.index import Index
from router.spool.index_types import Filter
from router.spool.reader import Reader
from router.spool.rebuild import rebuild
from router.spool.spool import Spool
from router.web import encode
from router.web.sources import ControlError

T = TypeVar("T")

_WHO = "command line, gateway at rest"
_PIECE = 1 << 20


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

    def account(self) -> Json:
        """See `Desk`; here the rows are counted as well."""
        return encode.account(_explained(lambda: self._index.account(audit=True)))

    def queues(self) -> list[Json]:
        """See `Desk`."""
        return [encode.queue_line(line) for line in _explained(self._index.queue_summary)]

    def queue(self, which: Conditions, limit: int, after: str) -> Json:
        """See `Desk`."""
        first, _, second = after.partition(".")
        cursor = (int(first), int(second)) if after else None
        items = _explained(lambda: self._index.queue_list(_filter(which), limit, cursor))
        following = ".".join(map(str, items[-1].cursor)) if len(items) == limit else ""
        return {"entries": [encode.queue_item(item) for item in items], "next": following}

    def instances(self, which: Conditions, limit: int, after: str) -> Json:
        """See `Desk`."""
        rows = _explained(lambda: self._index.instances(_filter(which), limit, int(after or 0)))
        following = str(rows[-1].ref.id) if len(rows) == limit else ""
        return {"entries": [encode.instance(row) for row in rows], "next": following}

    def instance(self, number: int) -> Json:
        """See `Desk`."""
        row = _explained(lambda: self._index.instance(number))
        if row is None:
            raise _gone(number)
        return encode.instance(row)

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

    def act(self, action: str, which: Conditions, **more: object) -> Json:
        """See `Desk`."""
        given = {**which, **more}
        to = given.pop("to", None)
        because = given.pop("because", "")
        meant = _meant(given)
        index, now = self._index, time.time()
        if to is not None:
            assert isinstance(to, list)
            names = tuple(map(str, to))
            self._check_destinations(names)
            changed = _explained(
                lambda: index.route_held(meant, names, "by an operator", at=now, who=_WHO)
            )
        elif action == "drop":
            changed = _explained(lambda: index.drop(meant, str(because), at=now, who=_WHO))
        else:
            method = {"retry": index.retry, "hold": index.hold, "release": index.release}[action]
            changed = _explained(lambda: method(meant, at=now, who=_WHO))
        return encode.changed(changed)

    def discard(self, which: Conditions, because: str) -> Json:
        """See `Desk`."""
        meant, now = _meant(which), time.time()
        changed = _explained(lambda: self._index.discard_held(meant, because, at=now, who=_WHO))
        return encode.changed(changed)

    def _check_destinations(self, names: tuple[str, ...]) -> None:
        known = [n for n, remote in self._config.remotes.items() if remote.host is not None]
        for name in names:
            if name not in known:
                fix = f"there are: {', '.join(known) or 'none'}"
                raise refused(f"{name} is not a destination", fix, 400)

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
        suppress = config.storage.duplicates == "suppress"
        report = _explained(lambda: rebuild(spool, index, suppress_duplicates=suppress))
        for line in (*spool.notes, *report.damage):
            click.echo(f"dcmrouter: {line}", err=True)
        yield OfflineDesk(config, spool, index)


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
