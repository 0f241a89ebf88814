"""What rules may name, from the rest of the file: remotes, conditions, lists, schedules, zone.

Owns gathering it although some setting is wrong, so that rules are checked all the same.  What is
wrong with the settings themselves is told by the models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from errno import ENOENT
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from router.config.checks import at
from router.config.files import Files
from router.config.model import ListFile, Schedule
from router.config.zone import machine_zone
from rules import Known, Problem
from rules.holidays import HolidayText, parse_holidays
from rules.lists import ListText, parse_list
from rules.source import MappingNode, Node, ScalarNode, kind, plain
from rules.window import Windows, is_zone

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Lists:
    """The values of each list by its name."""

    values: Mapping[str, frozenset[str]]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


@dataclass(slots=True)
class Surroundings:
    """`known` for the rules, and the zone that they are meant in."""

    known: Known
    zone: str
    lists: Lists
    problems: list[Problem] = field(default_factory=list)
    holidays: Mapping[str, HolidayText] = field(default_factory=dict)
    """By schedule."""


def survey(settings: MappingNode, files: Files, env: Mapping[str, str]) -> Surroundings:
    """What the rules of a file with these settings may name."""
    written = settings.get("timezone")
    zone = written.text if isinstance(written, ScalarNode) else ""
    if not zone or not is_zone(zone):
        zone = machine_zone(env)
    remotes = _entries(settings.get("remotes"))
    definitions = _sound(ListFile, _entries(settings.get("lists")))
    lists = read_lists(definitions, files, settings)
    problems: list[Problem] = []
    schedules = _sound(Schedule, _entries(settings.get("schedules")))
    holidays = _holidays(schedules, files, settings, problems)
    known = Known(
        frozenset(remotes),
        frozenset(name for name, node in remotes.items() if _has_host(node)),
        _conditions(settings.get("conditions"), problems),
        # Of those that could not be read the name is known all the same.
        dict.fromkeys(_entries(settings.get("lists")), frozenset[str]()) | dict(lists.values),
        dict.fromkeys(_entries(settings.get("schedules")), Windows(()))
        | {
            name: schedule.with_holidays(holidays.get(name, HolidayText())).windows(zone)
            for name, schedule in schedules.items()
        },
        frozenset(name for name, each in definitions.items() if each.ignore_case),
        _titles(remotes),
    )
    return Surroundings(known, zone, lists, problems, holidays)


def read_lists(definitions: Mapping[str, ListFile], files: Files, root: Node) -> Lists:
    """The lists' values, each from its file; ``root`` gives the problems their place.

    Blocking.  What is wrong within a file has its place there, without the line's text.
    """
    values: dict[str, frozenset[str]] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for name, definition in definitions.items():
        try:
            read = read_list(definition, files)
        except OSError as error:
            node = at(root, "lists", name, "file")
            message = f"lists.{name}.file: {definition.file!r} cannot be read: {error.strerror}"
            problems.append(node.problem(message, _DIRECTORY if error.errno == ENOENT else ""))
            continue
        values[name] = read.values
        problems += read.problems
        warnings += read.warnings
    return Lists(values, tuple(problems), tuple(warnings))


def read_list(definition: ListFile, files: Files) -> ListText:
    """What the file of one list holds; blocking, raises OSError."""
    file, data = files.list_file(definition.file)
    return parse_list(data, file, definition.place)


_DIRECTORY = "the name is taken from the directory of the configuration file"


def _entries(node: Node | None) -> dict[str, Node]:
    if not isinstance(node, MappingNode):
        return {}
    return {name: value for name, (_, value) in node.entries.items()}


def _sound(model: type[_Model], nodes: Mapping[str, Node]) -> dict[str, _Model]:
    """Those entries that are as their model wants them."""
    found = {}
    for name, node in nodes.items():
        try:
            found[name] = model.model_validate(plain(node))
        except ValidationError:
            continue  # told when the whole file is validated
    return found


def _titles(remotes: Mapping[str, Node]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, node in remotes.items():
        title = node.get("ae_title") if isinstance(node, MappingNode) else None
        if isinstance(title, ScalarNode):
            found.setdefault(title.text.strip(), name)
    return found


def _has_host(node: Node) -> bool:
    host = node.get("host") if isinstance(node, MappingNode) else None
    return host is not None and not (isinstance(host, ScalarNode) and host.is_null)


def _conditions(node: Node | None, problems: list[Problem]) -> dict[str, Node]:
    if node is not None and not isinstance(node, MappingNode):
        fix = "conditions: {head CT: {Modality: CT, BodyPartExamined: HEAD}}"
        problems.append(node.problem(f"conditions must be a mapping, not {kind(node)}", fix))
    return _entries(node)


def _holidays(
    schedules: Mapping[str, Schedule], files: Files, root: Node, problems: list[Problem]
) -> dict[str, HolidayText]:
    """What the files of holidays hold, by schedule; blocking."""
    found: dict[str, HolidayText] = {}
    for name, schedule in schedules.items():
        place = f"schedules.{name}"
        if schedule.on_holidays and schedule.holidays is None:
            message = f"{place}.on_holidays has no holidays"
            fix = "name their file: 'holidays: holidays.txt'"
            problems.append(at(root, "schedules", name, "on_holidays").problem(message, fix))
        if len(schedule.on_holidays) > 1 and {"open", "closed"} & set(schedule.on_holidays):
            message = f"{place}.on_holidays: 'open' and 'closed' stand alone"
            fix = "leave the other windows out"
            problems.append(at(root, "schedules", name, "on_holidays").problem(message, fix))
        if schedule.holidays is None:
            continue
        node = at(root, "schedules", name, "holidays")
        if not schedule.on_holidays:
            message = f"{place} does not say what holidays change"
            fix = "add 'on_holidays: closed', 'open', or windows such as '10:00-14:00'"
            problems.append(node.problem(message, fix))
        try:
            file, data = files.list_file(schedule.holidays)
        except OSError as error:
            message = f"{place}.holidays: {schedule.holidays!r} cannot be read: {error.strerror}"
            problems.append(node.problem(message, _DIRECTORY if error.errno == ENOENT else ""))
            continue
        found[name] = parse_holidays(data, file)
        problems += found[name].problems
    return found
