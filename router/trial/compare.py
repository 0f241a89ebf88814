"""What other rules would have made of an instance, against what was made of it.

Owns the comparison of two decisions and how a change of options is put into words.
"""

from dataclasses import dataclass, fields

from router.spool.plan import Plan
from router.spool.record import InstanceMeta, RouteMeta

ROUTED, HELD, DISCARDED = "route", "hold", "discard"


@dataclass(frozen=True, slots=True)
class Difference:
    """``added`` and ``dropped`` are destinations, ``changed`` those that stay, with what is other
    about them; ``before`` and ``after`` the dispositions; labels likewise.  ``reason`` is the
    candidate's, of what it holds or discards."""

    before: str
    after: str
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    changed: tuple[tuple[str, str], ...] = ()
    labels_added: tuple[str, ...] = ()
    labels_dropped: tuple[str, ...] = ()
    reason: str = ""

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return (
            self.before != self.after
            or bool(self.added or self.dropped or self.changed)
            or bool(self.labels_added or self.labels_dropped)
        )


def compare(before: InstanceMeta, after: InstanceMeta) -> Difference:
    """What differs between two descriptions of one instance."""
    old = {route.destination: route for route in before.routes}
    new = {route.destination: route for route in after.routes}
    changed = []
    for name, route in new.items():
        if name in old and (words := options_changed(old[name], route)):
            changed.append((name, words))
    return Difference(
        before.disposition,
        after.disposition,
        tuple(name for name in new if name not in old),
        tuple(name for name in old if name not in new),
        tuple(changed),
        tuple(tag for tag in after.tags if tag not in before.tags),
        tuple(tag for tag in before.tags if tag not in after.tags),
        after.reason,
    )


def options_changed(old: RouteMeta, new: RouteMeta) -> str:
    """``priority 0 → 10, schedule none → night``; "" when a delivery would be the same.

    The name of the rule is not an option.
    """
    found = [f"priority {old.priority} → {new.priority}"] if old.priority != new.priority else []
    if old.plan != new.plan:
        a, b = _plan(old.plan), _plan(new.plan)
        for each in fields(Plan):
            was, now = getattr(a, each.name), getattr(b, each.name)
            if was != now:
                found.append(f"{each.name} {_word(was)} → {_word(now)}")
    return ", ".join(found)


def _plan(text: str) -> Plan:
    try:
        return Plan.from_text(text)
    except ValueError:  # of a later version: then it is at least told that they differ
        return Plan(schedule=f"(unreadable: {text:.40})")


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]" if value else "none"
    if isinstance(value, float):
        return f"{value:g} s"
    return str(value) or "none"
