"""Rules compiled for deciding: which of them hold for an instance, and where it then goes.

Owns the index.  Sets of rules are the bits of an integer.  Each subject that any rule compares
(calling AE, Modality, ...) has a table from value to the rules that this value satisfies, so a
few dictionary look-ups and bitwise ANDs leave only the rules that hold; a glob that several rules
share is tried once; only what does not fit a table (nested ``any``, a second condition on one
subject) is kept as a closure for the rules that came so far.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from rules.decision import Decision, Facts, Route
from rules.pattern import Exact, Matcher, Network, Pattern, matcher, parse_address
from rules.rule import (
    AllOf,
    AnyOf,
    Condition,
    Match,
    Not,
    Rule,
    Subject,
    matches_of,
    version_of,
)

Test: TypeAlias = Callable[[Facts], bool]

NO_RULE = "no rule matched"


class RuleSet:
    """What `rules` say.  Immutable; `decide` may be called from any thread and never raises.

    ``tags`` are the attributes that `decide` needs in ``Facts.attributes``; ``version`` names
    the rules' meaning and changes exactly when that does.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.version = version_of(self.rules)
        self.tags = frozenset(
            match.subject
            for rule in self.rules
            for match in matches_of(rule.condition)
            if isinstance(match.subject, int)
        )
        self.destinations = frozenset(name for rule in self.rules for name in rule.to)
        self._routes = [tuple(Route(name, r.name) for name in r.to) for r in self.rules]
        self._discards = [self._discard(rule) for rule in self.rules]
        self._tests: list[Test | None] = []
        indexes: dict[Subject, _Index] = {}
        for number, rule in enumerate(self.rules):
            self._tests.append(_place(rule.condition, 1 << number, indexes))
        # Facts first: they are at hand, and tell rules apart better than most attributes.
        self._indexes = sorted(
            indexes.values(), key=lambda i: (isinstance(i.subject, int), -i.touched.bit_count())
        )
        for index in self._indexes:
            index.freeze()
        self._hold = Decision("hold", (), NO_RULE, self.version)

    def _discard(self, rule: Rule) -> Decision | None:
        if rule.discard is None:
            return None
        reason = f"rule {rule.name!r}" + (f": {rule.discard}" if rule.discard else "")
        return Decision("discard", (), reason, self.version)

    def decide(self, facts: Facts) -> Decision:
        """Where an instance goes.

        In order, each rule that holds adds its routes, until one is final.  A discard counts,
        and ends the matter, only while there are no routes.  What nothing matched is held.
        """
        routes: dict[str, Route] = {}
        for number in self.matching(facts):
            discard = self._discards[number]
            if discard is not None:
                if not routes:
                    return discard
            else:
                for route in self._routes[number]:
                    routes.setdefault(route.destination, route)
            if self.rules[number].final:
                break
        if routes:
            return Decision("route", tuple(routes.values()), "", self.version)
        return self._hold

    def matching(self, facts: Facts) -> Iterable[int]:
        """Positions of the rules whose conditions hold, rising, whatever their actions."""
        candidates = (1 << len(self.rules)) - 1
        for index in self._indexes:
            if candidates & index.touched:
                candidates = index.narrow(candidates, index.values(facts))
        while candidates:
            lowest = candidates & -candidates
            candidates ^= lowest
            number = lowest.bit_length() - 1
            test = self._tests[number]
            if test is None or test(facts):
                yield number


class _Table:
    """Values and patterns of one subject, each with the rules that it satisfies."""

    __slots__ = ("exact", "matchers", "patterns")

    def __init__(self) -> None:
        self.exact: dict[str, int] = {}
        self.patterns: dict[Pattern, int] = {}
        self.matchers: tuple[tuple[Matcher, int], ...] = ()

    def add(self, pattern: Pattern, bit: int) -> None:
        if isinstance(pattern, Exact):
            self.exact[pattern.text] = self.exact.get(pattern.text, 0) | bit
        elif isinstance(pattern, Network) and pattern.network.num_addresses == 1:
            self.add(Exact(str(pattern.network.network_address)), bit)
        else:
            self.patterns[pattern] = self.patterns.get(pattern, 0) | bit

    def freeze(self) -> None:
        self.matchers = tuple((matcher(p), rules) for p, rules in self.patterns.items())

    def satisfied(self, candidates: int, values: Sequence[str]) -> int:
        """The rules, at least those of ``candidates``, of which a pattern matches a value."""
        found = 0
        exact = self.exact
        for value in values:
            found |= exact.get(value, 0)
            for matches, rules in self.matchers:
                if rules & candidates & ~found and matches(value):
                    found |= rules
        return found


class _Index:
    """One subject: the rules that require a value of it, and those that require its absence."""

    __slots__ = ("forbidden", "forbidding", "required", "requiring", "subject", "touched", "values")

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.values = values_of(subject)
        self.required = _Table()
        self.forbidden = _Table()
        self.requiring = 0
        self.forbidding = 0
        self.touched = 0

    def require(self, patterns: Iterable[Pattern], bit: int) -> bool:
        """False when the rule has a condition here already: two on one subject are an `and`."""
        if self.requiring & bit:
            return False
        self.requiring |= bit
        for pattern in patterns:
            self.required.add(pattern, bit)
        return True

    def forbid(self, patterns: Iterable[Pattern], bit: int) -> None:
        self.forbidding |= bit
        for pattern in patterns:
            self.forbidden.add(pattern, bit)

    def freeze(self) -> None:
        self.touched = self.requiring | self.forbidding
        self.required.freeze()
        self.forbidden.freeze()

    def narrow(self, candidates: int, values: Sequence[str]) -> int:
        """Those of ``candidates`` whose conditions on this subject hold."""
        if candidates & self.requiring:
            candidates &= ~self.requiring | self.required.satisfied(candidates, values)
        if candidates & self.forbidding:
            candidates &= ~self.forbidden.satisfied(candidates, values)
        return candidates


def _place(condition: AllOf, bit: int, indexes: dict[Subject, _Index]) -> Test | None:
    """Enters a rule's condition in the indexes; returns a test of what did not fit there."""
    rest: list[Condition] = []

    def index(subject: Subject) -> _Index:
        return indexes.setdefault(subject, _Index(subject))

    def place(part: Condition) -> None:
        match part:
            case AllOf(conditions):
                for inner in conditions:
                    place(inner)
            case Match(subject, patterns):
                if not index(subject).require(patterns, bit):
                    rest.append(part)
            case Not(AllOf((inner,))):
                place_absent(inner, part)
            case _:
                rest.append(part)

    def place_absent(inner: Condition, whole: Condition) -> None:
        match inner:
            case Match(subject, patterns):
                index(subject).forbid(patterns, bit)
            case AnyOf(conditions):
                # None of several is the absence of each.
                for one in conditions:
                    place(Not(one))
            case AllOf((one,)):
                place_absent(one, whole)
            case Not(one):
                place(one)
            case _:
                rest.append(whole)

    place(condition)
    return compile_condition(AllOf(tuple(rest))) if rest else None


def compile_condition(condition: Condition) -> Test:
    """A condition as a function of the facts, without any index."""
    match condition:
        case Match(subject, patterns):
            return _compile_match(subject, patterns)
        case AllOf(conditions):
            tests = tuple(map(compile_condition, conditions))
            return tests[0] if len(tests) == 1 else lambda facts: all(t(facts) for t in tests)
        case AnyOf(conditions):
            return _any_of(tuple(map(compile_condition, conditions)))
        case Not(inner):
            test = compile_condition(inner)
            return lambda facts: not test(facts)


def _any_of(tests: Sequence[Test]) -> Test:
    def holds(facts: Facts) -> bool:
        for test in tests:  # noqa: SIM110
            if test(facts):
                return True
        return False

    return holds


def _compile_match(subject: Subject, patterns: Sequence[Pattern]) -> Test:
    values = values_of(subject)
    exact = frozenset(p.text for p in patterns if isinstance(p, Exact))
    others = tuple(matcher(p) for p in patterns if not isinstance(p, Exact))

    def holds(facts: Facts) -> bool:
        # Loops, not any(): generators cost several times what they would compare.
        for value in values(facts):
            if value in exact:
                return True
            for matches in others:
                if matches(value):
                    return True
        return False

    return holds


def values_of(subject: Subject) -> Callable[[Facts], Sequence[str]]:
    """How a subject's values are had from the facts; none for a missing attribute."""
    if isinstance(subject, int):
        tag = subject
        return lambda facts: facts.attributes.get(tag, ())
    return _FACT_VALUES[subject]


def _source(facts: Facts) -> Sequence[str]:
    # In one spelling, so that ::ffff:10.0.0.5 is found under 10.0.0.5.
    address = parse_address(facts.source_address)
    return () if address is None else (str(address),)


_FACT_VALUES: dict[str, Callable[[Facts], Sequence[str]]] = {
    "calling_ae": lambda facts: (facts.calling_ae.strip(),),
    "called_ae": lambda facts: (facts.called_ae.strip(),),
    "remote": lambda facts: (facts.remote,) if facts.remote else (),
    "source": _source,
    "sop_class": lambda facts: (facts.sop_class_uid,),
    "transfer_syntax": lambda facts: (facts.transfer_syntax_uid,),
}
