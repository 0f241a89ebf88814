"""Whether a decision is what a case expects, and which rules have to do with it when it is not.

Owns the comparison and its words.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rules.decision import Decision, Disposition, Route
from rules.rule import Rule
from rules.testcases import Case, Expectation, Wanted
from rules.words import span_words

_FATES: dict[Disposition, str] = {"hold": "is held", "discard": "is discarded"}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is not as expected.  ``names`` are the destinations that it is about,
    ``labels`` the labels; ``fate`` that it is about being held or discarded at all, ``keep`` that
    it is about for how long it is kept."""

    text: str
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    fate: bool = False
    keep: bool = False


def judge(case: Case, decision: Decision) -> tuple[Mismatch, ...]:
    """What a decision about the case's instance lacks; () when all is as expected."""
    expected = case.expected
    return (
        *_fates(expected, decision),
        *_routes(expected, decision),
        *_options(expected, decision),
        *(
            Mismatch(f"it has no label {tag}", labels=(tag,))
            for tag in expected.tags
            if tag not in decision.tags
        ),
        *_kept(expected, decision),
    )


def concerns(mismatch: Mismatch, rule: Rule, decision: Decision) -> bool:
    """Whether a rule has to do with it: could have done what is missed, or did what should not be.

    Of what is held or discarded against expectation every rule is asked that could have held,
    discarded or routed it.
    """
    if any(name in mismatch.names for name in rule.destinations):
        return True
    if any(tag in mismatch.labels for tag in rule.tags):
        return True
    if mismatch.keep and rule.keep_for:
        return True
    if not mismatch.fate:
        return False
    ends = rule.hold is not None or rule.discard is not None
    return ends or any(route.rule == rule.name for route in decision.routes)


def words(decision: Decision) -> str:
    """``goes to pacs, teleread`` or ``is held: no rule matched``."""
    if decision.disposition == "route":
        return f"goes to {', '.join(map(_route, decision.routes))}"
    return f"{_FATES[decision.disposition]}: {decision.reason}"


def _route(route: Route) -> str:
    if not route.members:
        return route.destination
    return str(Wanted(route.members, route.mode))


def _fates(expected: Expectation, decision: Decision) -> Iterator[Mismatch]:
    for want, disposition in ((expected.hold, "hold"), (expected.discard, "discard")):
        happened = decision.disposition == disposition
        word = {"hold": "held", "discard": "discarded"}[disposition]
        if want is False and happened:
            yield Mismatch(f"it is {word}: {decision.reason}", fate=True)
        elif want not in (None, False) and not happened:
            yield Mismatch(f"it is not {word}: it {words(decision)}", fate=True)
        elif isinstance(want, str) and want not in decision.reason:
            yield Mismatch(f"it is {word} for another reason: {decision.reason}", fate=True)


def _routes(expected: Expectation, decision: Decision) -> Iterator[Mismatch]:
    routes = decision.routes
    for wanted in expected.to or ():
        if any(_is(wanted, route) for route in routes):
            continue
        near = [r for r in routes if set(wanted.members) & {r.destination, *r.members}]
        text = f"it does not go to {wanted}"
        if near:
            text += f", but to {', '.join(map(_route, near))}"
        yield Mismatch(text, wanted.members, fate=not routes)
    if expected.to is not None:
        for route in routes:
            if not any(_is(wanted, route) for wanted in expected.to):
                names = (route.destination, *route.members)
                if set(expected.not_to) & set(names):
                    continue  # told below
                if not any(set(wanted.members) & set(names) for wanted in expected.to):
                    yield Mismatch(f"it goes to {_route(route)}", names)
    for name in expected.not_to:
        for route in routes:
            if name == route.destination or name in route.members:
                may = "goes" if name == route.destination else "may go"
                yield Mismatch(f"it {may} to {name}", (name,))


def _is(wanted: Wanted, route: Route) -> bool:
    if wanted.mode is None:
        return wanted.members[0] == route.destination
    if wanted.mode != route.mode:
        return False
    if wanted.mode == "balance":  # the order is drawn
        return sorted(wanted.members) == sorted(route.members)
    return wanted.members == route.members


def _options(expected: Expectation, decision: Decision) -> Iterator[Mismatch]:
    for option, destination, want in expected.options:
        routes = [r for r in decision.routes if destination in ("", r.destination)]
        found = [_option(option, route) for route in routes]
        if want in found:
            continue
        if not routes:
            where = f"to {destination}" if destination else "anywhere"
            asked = (destination,) if destination else ()
            text = f"{option} is not {want}: it does not go {where}"
            yield Mismatch(text, asked, fate=not destination)
            continue
        had = ", ".join(
            f"{value} at {r.destination}" for value, r in zip(found, routes, strict=True)
        )
        names = tuple(route.destination for route in routes)
        yield Mismatch(f"{option} is not {want}, but {had}", names)


def _kept(expected: Expectation, decision: Decision) -> Iterator[Mismatch]:
    """`keep` is that of the decision: nothing of what a rule discards."""
    want, found = expected.keep, decision.keep_for
    if want is None or want == found:
        return
    had = f"kept for {span_words(found)}" if found else "not kept by any rule"
    if want:
        yield Mismatch(f"it is not kept for {span_words(want)}: it is {had}", keep=True)
    else:
        yield Mismatch(f"it is {had}", keep=True)


def _option(option: str, route: Route) -> str | int:
    if option == "priority":
        return route.priority
    return route.send.after if option == "after" else route.send.schedule or "none"
