"""What differs between the running configuration and the one that shall replace it.

Owns which settings are read only once, at the start.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

from pydantic import BaseModel

from router.config.checks import at
from router.config.load import Loaded
from router.config.model import Config
from rules import Problem

NEEDS_RESTART = (
    "data_dir",
    "http.listen",
    "log.format",
    "log.patient_data",
    "spool.large_instance",
    "spool.receive_memory",
    "spool.segment_size",
)
"""Settings by their dotted names: spool and web listener are opened once."""

_SECTIONS = ("http", "spool", "storage", "network", "log", "versions")

_SINGLE = ("data_dir", "timezone", "commitment")

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Changes:
    """Keys of what was added, removed and changed.

    A local AE goes by (AE title, listen), a remote, list or schedule by its name, any other
    setting by its dotted name (``spool.low_disk``, ``timezone``).  What a list's file holds is
    not looked at.  ``restart`` are the members of ``settings`` that cannot change
    while the gateway runs.
    """

    locals_added: frozenset[tuple[str, str]] = frozenset()
    locals_removed: frozenset[tuple[str, str]] = frozenset()
    locals_changed: frozenset[tuple[str, str]] = frozenset()
    remotes_added: frozenset[str] = frozenset()
    remotes_removed: frozenset[str] = frozenset()
    remotes_changed: frozenset[str] = frozenset()
    rules: bool = False
    lists: frozenset[str] = frozenset()
    schedules: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    restart: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return self != Changes()


def diff(old: Config, new: Config) -> Changes:
    """What differs.  The order of local AEs and remotes does not count, that of rules does."""
    locals_ = _compare(
        {(ae.ae_title, ae.listen): ae for ae in old.local},
        {(ae.ae_title, ae.listen): ae for ae in new.local},
    )
    remotes = _compare(old.remotes, new.remotes)
    settings = {
        f"{section}.{key}"
        for section in _SECTIONS
        for key in _changed_keys(getattr(old, section), getattr(new, section))
    }
    settings |= {key for key in _SINGLE if getattr(old, key) != getattr(new, key)}
    return Changes(
        *locals_,
        *remotes,
        rules=old.rules != new.rules,
        lists=frozenset().union(*_compare(old.lists, new.lists)),
        schedules=frozenset().union(*_compare(old.schedules, new.schedules)),
        settings=frozenset(settings),
        restart=tuple(name for name in NEEDS_RESTART if name in settings),
    )


def names_of(changes: Changes) -> tuple[str, ...]:
    """What changed, one text each: ``remotes_added: pacs``, ``rules``."""
    names: list[str] = []
    for item in fields(Changes):
        value = getattr(changes, item.name)
        if isinstance(value, frozenset):
            names += [f"{item.name}: {one}" for one in sorted(map(str, value))]
        elif value is True:
            names.append(item.name)
    return tuple(names)


def restart_problems(changes: Changes, new: Loaded) -> list[Problem]:
    """Why ``new`` cannot take effect in the running process; [] when it can."""
    return [
        at(new.root, *name.split(".")).problem(
            f"{name} cannot change while the gateway runs", "restart it, or put the old value back"
        )
        for name in changes.restart
    ]


def _compare(
    old: Mapping[_Key, _Value], new: Mapping[_Key, _Value]
) -> tuple[frozenset[_Key], frozenset[_Key], frozenset[_Key]]:
    both = old.keys() & new.keys()
    return (
        frozenset(new.keys() - old.keys()),
        frozenset(old.keys() - new.keys()),
        frozenset(key for key in both if old[key] != new[key]),
    )


def _changed_keys(old: BaseModel, new: BaseModel) -> list[str]:
    return [key for key in type(old).model_fields if getattr(old, key) != getattr(new, key)]
