"""The JSON forms of what `sources` and the index give, and of the filters that come in.

Owns the names of the API's fields.  Two forms of a queue and a status exist on purpose: there is
no way from an instance to the form that the TCP port shows.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from router.config.versions import File, Version
from router.spool.index_hours import SinceAccount
from router.spool.index_types import (
    Account,
    Attempt,
    Changed,
    Delivery,
    DeliveryState,
    DestinationAccount,
    Disposition,
    Filter,
    InstanceRow,
    QueueItem,
    QueueLine,
)
from router.units import parse_duration
from router.web.sources import ControlError, Reloaded, RulesView, Status, VersionsView
from router.web.standing import Standing, situation

Json = dict[str, object]

_STATES = {state.name.lower(): state for state in DeliveryState}
_DISPOSITIONS = {item.name.lower(): item for item in Disposition}
MAX_IDS = 10_000


def status(value: Status) -> Json:
    """``/api/v1/status``."""
    snapshot = value.snapshot
    return {
        "version": value.version,
        "now": snapshot.now,
        "started_at": value.started_at,
        "rules_version": value.rules_version,
        "configured_at": value.configured_at,
        "reload_error": value.reload_error,
        "listeners": [asdict(item) for item in value.listeners],
        "destinations": [asdict(item) for item in snapshot.destinations],
        "queues": [queue_line(item) for item in snapshot.queues],
        "associations": [asdict(item) for item in value.associations],
        "disk": asdict(snapshot.disk) if snapshot.disk else None,
        "unindexed_instances": snapshot.unindexed_instances,
        "held_instances": snapshot.held_instances,
        "dead_instances": snapshot.dead_instances,
        "account_differences": dict(snapshot.account_differences),
    }


def queue_line(value: QueueLine) -> Json:
    """One destination and state."""
    return {
        "destination": value.destination,
        "state": value.state.name.lower(),
        "instances": value.count,
        "bytes": value.bytes,
        "oldest_received_at": value.oldest,
        "next_due_at": value.next_due,
        "gated": value.gated,
        "waits": list(value.waits),
    }


def delivery(value: Delivery) -> Json:
    """One instance at one destination; ``status`` in hexadecimal as the standard writes it."""
    return asdict(value) | {
        "state": value.state.name.lower(),
        "status": None if value.status is None else f"{value.status:04X}",
        "plan": _plan(value.plan),
    }


def standing_delivery(value: Delivery, standing: Standing) -> Json:
    """The same with its state in words: ``situation``."""
    return delivery(value) | {"situation": asdict(situation(value, standing))}


def attempt(value: Attempt) -> Json:
    """One attempt and its answer."""
    word = "deferred" if value.outcome is DeliveryState.READY else value.outcome.name.lower()
    status = None if value.status is None else f"{value.status:04X}"
    return asdict(value) | {"outcome": word, "status": status}


def _plan(text: str) -> Json:
    """The options under which it goes, those alone that are not the default."""
    try:
        plan = json.loads(text or "{}")
    except ValueError:
        plan = text
    return plan if isinstance(plan, dict) else {"unreadable": text}


def queue_item(value: QueueItem, standing: Standing) -> Json:
    """A delivery with the instance that it delivers, and its state in words."""
    return standing_delivery(value.delivery, standing) | {
        "length": value.ref.length,
        "received_at": value.meta.received_at,
        "calling_ae": value.meta.calling_ae,
        "remote": value.meta.remote,
        "sop_class_uid": value.meta.sop_class_uid,
        "sop_instance_uid": value.meta.sop_instance_uid,
        "study_instance_uid": value.meta.study_instance_uid,
        "series_instance_uid": value.meta.series_instance_uid,
        "modality": value.meta.modality,
        "transfer_syntax_uid": value.meta.transfer_syntax_uid,
    }


def instance(value: InstanceRow, standing: Standing) -> Json:
    """An instance with its deliveries, attempts and events, where they were asked for."""
    meta = value.meta._asdict()
    meta["routes"] = [r._asdict() | {"plan": _plan(r.plan)} for r in value.meta.routes]
    del meta["disposition"], meta["quarantined"]
    return {
        "id": value.ref.id,
        "length": value.ref.length,
        **meta,
        "disposition": value.disposition.name.lower(),
        "settled_at": value.settled_at,
        "deliveries": [standing_delivery(item, standing) for item in value.deliveries],
        "attempts": [attempt(item) for item in value.attempts],
        "events": [asdict(item) for item in value.events],
    }


def rules(value: RulesView) -> Json:
    """``/api/v1/rules``."""
    return asdict(value)


def versions(value: VersionsView) -> Json:
    """The versions, the newest first as people look for them."""
    return {
        "versions": [version(item) for item in reversed(value.versions)],
        "in_force": value.in_force or None,
        "damaged": list(value.damaged),
        "trouble": value.trouble,
    }


def version(value: Version) -> Json:
    """One version without its files."""
    return asdict(value) | {"of": value.of or None, "names": list(map(_shown, value.names))}


def _shown(name: str) -> str:
    """The name of a file, which need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def version_file(value: File) -> Json:
    """A file of a version: its text, or its bytes in base64 where they are no UTF-8."""
    name = _shown(value.name)
    try:
        return {"name": name, "text": value.data.decode()}
    except UnicodeDecodeError:
        return {"name": name, "base64": base64.b64encode(value.data).decode()}


def reloaded(value: Reloaded) -> Json:
    """How a reload or a way back ended."""
    files = list(map(_shown, value.files))
    return asdict(value) | {"version": value.version or None, "files": files}


def changed(value: Changed) -> Json:
    """What an action did."""
    return {"changed": value.count, "bytes": value.bytes, "more": value.more}


def account(value: Account) -> Json:
    """The balance."""
    return asdict(value) | {"balanced": value.balanced, "destinations": _lines(value.destinations)}


def _lines(destinations: Mapping[str, DestinationAccount]) -> list[Json]:
    return [
        {"destination": name, **asdict(line), "difference": line.difference}
        for name, line in destinations.items()
    ]


def account_since(value: SinceAccount) -> Json:
    """The balance of what was received since a time."""
    return asdict(value) | {"balanced": value.balanced, "destinations": _lines(value.destinations)}


def parse_since(text: object, now: float) -> float:
    """The time that a duration (``24h``) is ago.  Raises ControlError."""
    return _ago("since", text, now)


def parse_names(given: object) -> tuple[str, ...]:
    """One name, or a list of them, each once.  Raises ControlError."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ControlError("to names destinations", 'as in "to": ["pacs"]')
    return tuple(dict.fromkeys(names))


def parse_filter(given: Mapping[str, object], now: float) -> Filter:
    """The filter of a request; ``older_than`` and ``newer_than`` are durations (``2h``).

    Raises ControlError for an unknown condition or a value that is not one.
    """
    unknown = sorted(given.keys() - _CONDITIONS.keys())
    if unknown:
        raise ControlError(
            f"unknown condition {unknown[0]!r}", f"conditions are {', '.join(_CONDITIONS)}"
        )
    if nothing := [name for name, value in given.items() if value is None]:
        # Of a script whose variable is empty: without the condition it would mean far more.
        raise ControlError(f"{nothing[0]} is null", "give it a value, or leave it out")
    values = {name: _CONDITIONS[name](name, value, now) for name, value in given.items()}
    return Filter(**values)  # type: ignore[arg-type]  # each parser gives the type of its field


def _text(name: str, value: object, _: float) -> str:
    if not isinstance(value, str) or not value:
        raise ControlError(f"{name} is text, not {json.dumps(value)}", f'as in "{name}": "…"')
    return value


def _one_of(table: Mapping[str, object]) -> Callable[[str, object, float], object]:
    def parse(name: str, value: object, _: float) -> object:
        if not isinstance(value, str) or value not in table:
            known = ", ".join(table)
            raise ControlError(f"{name} {json.dumps(value)} is not known", f"it is one of {known}")
        return table[value]

    return parse


def _ago(name: str, value: object, now: float) -> float:
    try:
        return max(0.0, now - parse_duration(value))
    except ValueError as error:
        raise ControlError(f"{name}: {error}", f'as in "{name}": "2h"') from None


def _ids(name: str, value: object, _: float) -> tuple[int, ...]:
    if isinstance(value, str):  # in a query string
        value = [
            int(v) if v.isascii() and v.isdigit() and len(v) < 20 else v for v in value.split(",")
        ]
    if not isinstance(value, Sequence) or not all(type(v) is int and 0 < v < 2**63 for v in value):
        raise ControlError(f"{name} is a list of instance numbers", f'as in "{name}": [17, 18]')
    if len(value) > MAX_IDS:
        raise ControlError(f"{len(value)} {name} are too many", f"give at most {MAX_IDS} at once")
    return tuple(value)


_CONDITIONS: dict[str, Callable[[str, object, float], object]] = {
    "destination": _text,
    "state": _one_of(_STATES),
    "study": _text,
    "sop_instance_uid": _text,
    "reason": _text,
    "older_than": _ago,
    "newer_than": _ago,
    "ids": _ids,
    "disposition": _one_of(_DISPOSITIONS),
    "tag": _text,
}
