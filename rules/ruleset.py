"""Rules compiled for deciding: which of them hold for an instance, and where it then goes.

Owns the order of rules and what becomes of what they say.  `rules.interpret` says the same slowly
and in words; a test holds the two together.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, tzinfo

from rules.attributes import Key, label_of_key
from rules.balance import attributes_for, drawn
from rules.compile import Moment, Setting, Test, compile_condition
from rules.decision import Decision, Disposition, Facts, Route
from rules.intervals import Pieces
from rules.pattern import Listed
from rules.rule import (
    AllOf,
    Condition,
    Match,
    Received,
    Rule,
    Target,
    attributes_of,
    compared_in,
    leaves_of,
    version_of,
)
from rules.tables import Indexes
from rules.window import Windows, zone_of

NO_RULE = "no rule matched"
NO_ROUTE = "no rule says where it goes"
"""Of what rules matched and only labelled."""


class RuleSet:
    """What `rules` say.  Immutable; `decide` may be called from any thread and never raises.

    ``zone`` is the time zone in which days begin.  ``lists`` are the entries of the lists that
    conditions name; one that is missing has none.  ``tags`` are the attributes that `decide`
    needs in ``Facts.attributes``; ``version`` names the rules' meaning and changes exactly when
    that does, whatever the lists hold.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        zone: str = "UTC",
        lists: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self.rules = tuple(rules)
        self.zone = zone
        self.lists = dict(lists or {})
        self.version = version_of(self.rules, zone)
        active = [rule for rule in self.rules if rule.disabled is None]
        self.tags: frozenset[Key] = frozenset(key for rule in active for key in _keys_of(rule))
        self.destinations = frozenset(name for rule in self.rules for name in rule.destinations)
        self.list_names = frozenset(name for rule in active for name in _lists_of(rule))
        self._compared = frozenset(key for rule in active for key in compared_in(rule.condition))
        self._zone = zone_of(zone)
        self._actions = [_Action(rule) for rule in self.rules]
        self._hold = Decision("hold", (), NO_RULE, self.version)
        self._compile()

    def _compile(self) -> None:
        setting = Setting(self._zone, self.lists)
        indexes = Indexes(setting)
        self._calendar = _Calendar()
        self._tests: list[Test | None] = []
        for number, rule in enumerate(self.rules):
            rest: list[Condition] = []
            if rule.disabled is None:
                bit = 1 << number
                rest = self._calendar.add(rule, indexes.place(rule.condition, bit), bit, self._zone)
            self._tests.append(compile_condition(AllOf(tuple(rest)), setting) if rest else None)
        self._calendar.freeze()
        self._indexes = indexes.ordered()

    def with_lists(self, lists: Mapping[str, frozenset[str]]) -> "RuleSet":
        """The same rules, of the same version, over other entries of their lists."""
        return RuleSet(self.rules, zone=self.zone, lists=lists)

    def decide(self, facts: Facts) -> Decision:
        """Where an instance goes.

        In order, each rule that holds gives its labels and adds its routes, until one is final.  A
        discard or a hold counts, and ends the matter, only while there are no routes.  What
        nothing routes is held, and so is what no rule can judge (`unfit`).
        """
        if facts.too_large and (reason := self.unfit(facts)):
            return Decision("hold", (), reason, self.version)
        routes: dict[str, Route] = {}
        moment = Moment(facts.received_at, self._zone)
        labels = moment.labels
        matched = False
        keep = 0.0
        for number in self._holding(facts, moment):
            action = self._actions[number]
            matched = True
            if action.labels:
                labels.extend([label for label in action.labels if label not in labels])
            if action.keep_for > keep:
                keep = action.keep_for
            if action.ends and not routes:
                return self._end(self.rules[number], labels, keep)
            for route in action.routes:
                if route.destination not in routes:
                    routes[route.destination] = route
            if action.drawn:
                self._draw(number, facts, routes)
            if action.final:
                break
        if routes:
            found = tuple(routes.values())
            return Decision("route", found, "", self.version, tuple(labels), keep)
        if matched:
            return Decision("hold", (), NO_ROUTE, self.version, tuple(labels), keep)
        return self._hold

    def unfit(self, facts: Facts) -> str:
        """Why the rules cannot judge an instance; "" when they can.

        What is too large has no values here: a `not` would hold for it, and let go what it is
        there to keep.
        """
        if not (keys := facts.too_large & self._compared):
            return ""
        first, *others = sorted(map(label_of_key, keys))
        more = f" (and {len(others)} more)" if others else ""
        return f"{first}{more}, which rules look at, is too large to be compared"

    def _draw(self, number: int, facts: Facts, routes: dict[str, Route]) -> None:
        """The targets of a rule of which one at least shares its load, in order."""
        rule = self.rules[number]
        for target in rule.targets:
            members = target.members
            if target.mode == "balance":
                members = drawn(target, facts.attributes)
            routes.setdefault(members[0], _route(rule, target, members))

    def _end(self, rule: Rule, labels: list[str], keep: float) -> Decision:
        given = rule.hold if rule.discard is None else rule.discard
        reason = f"rule {rule.name!r}" + (f": {given}" if given else "")
        disposition: Disposition = "hold" if rule.discard is None else "discard"
        kept = keep if disposition == "hold" else 0.0
        return Decision(disposition, (), reason, self.version, tuple(labels), kept)

    def matching(self, facts: Facts) -> Iterator[int]:
        """Positions of the rules that hold, rising, whatever their actions; labels are given."""
        moment = Moment(facts.received_at, self._zone)
        for number in self._holding(facts, moment):
            moment.labels.extend(self.rules[number].tags)
            yield number

    def _holding(self, facts: Facts, moment: Moment) -> Iterator[int]:
        """As `matching`; labels in ``moment`` are whoever asks' to give, before the next one."""
        candidates = self._calendar.open_at(facts.received_at)
        for index in self._indexes:
            if candidates & index.touched:
                candidates = index.narrow(candidates, facts, moment)
        while candidates:
            lowest = candidates & -candidates
            candidates ^= lowest
            number = lowest.bit_length() - 1
            test = self._tests[number]
            if test is None or test(facts, moment):
                yield number


class _Action:
    """What a rule does, made ready.  With ``drawn`` its routes depend on the instance."""

    __slots__ = ("drawn", "ends", "final", "keep_for", "labels", "routes")

    def __init__(self, rule: Rule) -> None:
        self.labels = tuple(dict.fromkeys(rule.tags))
        self.ends = rule.discard is not None or rule.hold is not None
        self.final = rule.final
        self.keep_for = rule.keep_for
        self.drawn = any(target.mode == "balance" for target in rule.targets)
        self.routes: tuple[Route, ...] = ()
        if not self.drawn:
            self.routes = tuple(_route(rule, each, each.members) for each in rule.targets)


class _Calendar:
    """Which rules may hold at a moment: those that are valid, and received in their windows."""

    def __init__(self) -> None:
        self._always = 0
        self._validity: list[tuple[tuple[float, int], tuple[float, int], int]] = []
        self._windows: dict[Windows, int] = {}
        self._pieces: Pieces | None = None
        self._minute: tuple[int | None, int] = (None, 0)

    def add(self, rule: Rule, rest: list[Condition], bit: int, zone: tzinfo) -> list[Condition]:
        """Enters a rule's times; returns what of ``rest`` is no window of time."""
        start, end = _moments_of(rule, zone)
        if start is None and end is None:
            self._always |= bit
        else:
            self._validity.append(
                (
                    (float("-inf") if start is None else start, 0),
                    (float("inf"), 1) if end is None else (end, 0),
                    bit,
                )
            )
        left: list[Condition] = []
        for condition in rest:
            if isinstance(condition, Received):
                # A rule with several is shut while any of them is.
                windows = condition.windows
                self._windows[windows] = self._windows.get(windows, 0) | bit
            else:
                left.append(condition)
        return left

    def freeze(self) -> None:
        """After the last rule."""
        self._pieces = Pieces(self._validity) if self._validity else None

    def open_at(self, moment: float) -> int:
        """The rules that may hold."""
        rules = self._always
        if self._pieces is not None:
            rules |= self._pieces.at(moment)
        if self._windows:
            rules &= ~self._shut(moment)
        return rules

    def _shut(self, moment: float) -> int:
        # Windows open and close on whole minutes, and so do the time zones in which they are.
        minute, shut = self._minute
        if minute != int(moment // 60):
            shut = 0
            for windows, rules in self._windows.items():
                if not windows.open_at(moment):
                    shut |= rules
            self._minute = (int(moment // 60), shut)
        return shut


def _moments_of(rule: Rule, zone: tzinfo) -> tuple[float | None, float | None]:
    """From when, and until when, a rule is valid, in seconds since the epoch; None is open."""
    return _seconds(rule.valid_from, zone), _seconds(rule.until, zone)


def _seconds(when: datetime | None, zone: tzinfo) -> float | None:
    if when is None:
        return None
    return (when if when.tzinfo is not None else when.replace(tzinfo=zone)).timestamp()


def _route(rule: Rule, target: Target, members: tuple[str, ...]) -> Route:
    several = members if target.mode != "one" else ()
    return Route(
        *(members[0], rule.name, rule.send.priority, target.mode, several, rule.send),
        *(target.keep, target.on_refusal),
    )


def _keys_of(rule: Rule) -> Iterator[Key]:
    for attribute in attributes_of(rule.condition):
        yield attribute.key
    for target in rule.targets:
        yield from attributes_for(target)


def _lists_of(rule: Rule) -> Iterator[str]:
    for leaf in leaves_of(rule.condition):
        if isinstance(leaf, Match):
            for pattern in leaf.patterns:
                if isinstance(pattern, Listed):
                    yield pattern.name
