"""The page at ``/``: what a person on call needs to see first.

Owns its wording and layout.  It has no script, no form and nothing from elsewhere: hospital
networks are closed, and a page that cannot do anything needs no defence for what it does.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from router.observe.state import DestinationState
from router.spool.index_types import DeliveryState, QueueLine
from router.web.markup import Content, Markup, document, element, join
from router.web.sources import AssociationState, Status

REFRESH = 10
"""Seconds after which the browser asks again."""

STYLE = """
:root{color-scheme:light dark;--line:#8884;--bad:#c62828;--good:#2e7d32;--soft:#888}
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:75rem;padding:0 1rem}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:1.8rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
th,.n{white-space:nowrap}td:last-child{overflow-wrap:anywhere}
th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}
a{color:inherit}.bad{color:var(--bad);font-weight:600}.good{color:var(--good)}.soft{color:var(--soft)}
@media(prefers-color-scheme:dark){:root{--bad:#ff7b72;--good:#7ee787}}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing but the style above, known by its hash."""

_SHOWN_ASSOCIATIONS = 200


def size(count: float) -> str:
    """Bytes for people: ``640 B``, ``1.5 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def span(seconds: float) -> str:
    """A duration for people, in its largest two units: ``4 s``, ``3 min 20 s``, ``2 d 5 h``."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for name, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or (parts and len(parts) < 2):
            parts.append(f"{number} {name}" if number else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part) or "0 s"


def render(status: Status) -> str:
    """The page, as HTML."""
    snapshot = status.snapshot
    return document(
        "dcmrouter",
        STYLE,
        element("h1", "dcmrouter ", element("span", status.version, class_="soft")),
        _headline(status),
        element("h2", "Destinations"),
        _destinations(snapshot.destinations, snapshot.queues, snapshot.now),
        element("h2", "Instances"),
        _instances(status),
        element("h2", "Disk"),
        _disk(status),
        element("h2", "Associations"),
        _associations(status),
        element("h2", "Listening"),
        table(
            ("local AE", "address", ""),
            (
                (item.local_ae, item.address, "" if item.listening else bad("not listening"))
                for item in status.listeners
            ),
            "no local AE",
        ),
        refresh=REFRESH,
    )


def _headline(status: Status) -> Markup:
    now = status.snapshot.now
    parts: list[Content] = [
        element(
            "p",
            f"Up for {span(now - status.started_at)}, as of {moment(now)}. ",
            element("a", f"Rules {status.rules_version}", href="rules"),
            class_="soft",
        )
    ]
    if status.reload_error:
        parts.append(element("p", bad("Configuration not in effect: "), status.reload_error))
    differences = {k: n for k, n in status.snapshot.account_differences.items() if n}
    for scope, number in differences.items():
        parts.append(element("p", bad(f"Not accounted for, {scope}: {number}")))
    return join(*parts)


def _destinations(
    destinations: Sequence[DestinationState], queues: Sequence[QueueLine], now: float
) -> Markup:
    by_name: dict[str, dict[DeliveryState, QueueLine]] = {}
    for queue in queues:
        by_name.setdefault(queue.destination, {})[queue.state] = queue
    known = {d.name: d for d in destinations}
    rows = []
    for name in sorted(known.keys() | by_name.keys()):
        states = by_name.get(name, {})
        state, associations, why = _destination_cells(known.get(name), now)
        cells = _queue_cells(states, now)
        rows.append((name, *cells, state, associations, _why(why, states)))
    return table(
        ("name", "waiting", "size", "oldest", "held", "dead", "state", "associations", "why"),
        rows,
        "no destination",
        numbers={1, 2, 3, 4, 5, 7},
    )


def _queue_cells(states: dict[DeliveryState, QueueLine], now: float) -> tuple[Content, ...]:
    ready = states.get(DeliveryState.READY)
    held = states[DeliveryState.HELD].count if DeliveryState.HELD in states else 0
    dead = states[DeliveryState.DEAD].count if DeliveryState.DEAD in states else 0
    oldest = ready.oldest if ready else None
    return (
        ready.count if ready else 0,
        size(ready.bytes) if ready and ready.count else "",
        span(now - oldest) if oldest is not None else "",
        held or "",
        bad(dead) if dead else "",
    )


def _why(reason: str, states: dict[DeliveryState, QueueLine]) -> str:
    """Why it is not sending, and why some would not go if it were."""
    ready, taken = states.get(DeliveryState.READY), states.get(DeliveryState.UNCOMMITTED)
    found = [reason] if reason else []
    if ready is not None and ready.gated:
        found.append(f"{ready.gated} wait: {', '.join(ready.waits)}")
    if taken is not None and taken.count:
        found.append(f"{taken.count} stored, {', '.join(taken.waits)}")
    return "; ".join(found)


def _destination_cells(state: DestinationState | None, now: float) -> tuple[Content, Content, str]:
    if state is None:
        return (bad("not configured"), "", "waits until it is configured again or dropped")
    if state.paused:
        return (bad("paused"), state.associations, state.paused)
    if state.opens_at is not None:
        return ("shut", state.associations, f"its schedule opens in {span(state.opens_at - now)}")
    if state.shut:
        return (bad("shut"), state.associations, f"{state.shut}, and does not open again")
    if state.up:
        why = state.reason or state.limited
        return (element("span", "up", class_="good"), state.associations, why)
    probe = ""
    if state.next_probe_at is not None:
        probe = f" (next try in {span(state.next_probe_at - now)})"
    return (bad("down"), state.associations, f"{state.reason}{probe}")


def _instances(status: Status) -> Markup:
    held, dead = status.snapshot.held_instances, status.snapshot.dead_instances
    return table(
        ("", ""),
        (
            ("held: no rule matched, or quarantined", bad(held) if held else 0),
            ("deliveries that failed for good", bad(dead) if dead else 0),
        ),
        "",
        numbers={1},
    )


def _disk(status: Status) -> Markup:
    disk = status.snapshot.disk
    if disk is None:
        return element("p", bad("not known"))
    low = join(" ", bad("low: C-STORE is answered A700")) if disk.low else Markup("")
    spool = f"Spool {size(disk.spool_bytes)}, of which {size(disk.spare_bytes)} spare"
    return element("p", f"{spool}; free {size(disk.free_bytes)}.", low)


def _associations(status: Status) -> Markup:
    shown = status.associations[:_SHOWN_ASSOCIATIONS]
    shown_table = table(
        ("direction", "local AE", "peer", "calling AE", "address", "open for", "instances"),
        (_association_cells(a, status.snapshot.now) for a in shown),
        "none open",
        numbers={5, 6},
    )
    more = len(status.associations) - len(shown)
    return join(shown_table, element("p", f"… and {more} more")) if more else shown_table


def _association_cells(state: AssociationState, now: float) -> tuple[Content, ...]:
    who = (state.direction, state.local_ae, state.peer, state.calling_ae, state.address)
    return (*who, span(now - state.since), state.instances)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Content]],
    nothing: str,
    numbers: set[int] | None = None,
) -> Markup:
    """A table, or ``nothing`` when it has no rows; ``numbers`` are the columns set to the right."""
    body = [element("tr", *_cells("td", row, numbers or set())) for row in rows]
    if not body:
        return element("p", nothing, class_="soft")
    heading = element("tr", *_cells("th", head, numbers or set())) if any(head) else Markup("")
    return element("table", heading, *body)


def _cells(tag: str, row: Sequence[Content], numbers: set[int]) -> list[Markup]:
    return [
        element(tag, cell, class_="n") if i in numbers else element(tag, cell)
        for i, cell in enumerate(row)
    ]


def bad(content: Content) -> Markup:
    """What must be looked at."""
    return element("span", content, class_="bad")


def moment(at: float) -> str:
    """A time for people: ``2026-11-21 04:00:00 UTC``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
