"""The rules in words, for whoever can reach the port.

Owns what may be shown there: names and values from the configuration, but no value that a rule
compares with an attribute that could identify a patient.  `dcmrouter rules show` has them whole.
"""

from collections.abc import Sequence

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from router.config.differences import effects, sending
from router.web.sources import RuleLine
from rules import Rule
from rules.attributes import Attribute, Private, label_of
from rules.pattern import Affix, Exact, Folded, Glob, Interval, Listed, Network, Pattern, Regex
from rules.rule import (
    AllOf,
    AnyOf,
    Condition,
    Count,
    Has,
    Match,
    Named,
    Not,
    Received,
    SameAs,
    Subject,
)
from rules.window import Span

_HARMLESS = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "BodyPartExamined",
        "BurnedInAnnotation",
        "Columns",
        "ConversionType",
        "FrameOfReferenceUID",
        "ImageType",
        "InstitutionName",
        "InstitutionalDepartmentName",
        "KVP",
        "Laterality",
        "ImageLaterality",
        "MagneticFieldStrength",
        "Manufacturer",
        "ManufacturerModelName",
        "Modality",
        "ModalitiesInStudy",
        "NumberOfFrames",
        "PatientPosition",
        "PhotometricInterpretation",
        "PixelSpacing",
        "PresentationIntentType",
        "ProtocolName",
        "Rows",
        "SOPClassUID",
        "SamplesPerPixel",
        "ScanningSequence",
        "SequenceName",
        "SeriesDescription",
        "SeriesNumber",
        "SliceThickness",
        "SoftwareVersions",
        "SpacingBetweenSlices",
        "SpecificCharacterSet",
        "StationName",
        "StudyDescription",
        "ViewPosition",
    )
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONGEST = 12
"""Patterns of one comparison that are shown."""


def line_of(rule: Rule, now: float) -> RuleLine:
    """A rule as the page shows it; ``now`` tells whether it is valid."""
    does = effects(rule)
    how = sending(rule.send)
    if rule.targets and how != "at once":
        does.insert(1, how)
    return RuleLine(rule.name, condition(rule.condition), tuple(does), _state(rule, now))


def _state(rule: Rule, now: float) -> str:
    if rule.disabled is not None:
        return f"disabled: {rule.disabled}"
    if rule.valid_from is not None and now < rule.valid_from.timestamp():
        return f"valid from {rule.valid_from.isoformat(' ', 'minutes')}"
    if rule.until is not None and now >= rule.until.timestamp():
        return f"expired {rule.until.isoformat(' ', 'minutes')}"
    return ""


def condition(value: Condition) -> str:
    """A condition in words; "" for one that always holds."""
    match value:
        case Match(subject, patterns):
            return f"{_subject(subject)} is {_patterns(subject, patterns)}"
        case Has(subject, extent):
            return f"{_subject(subject)} {_EXTENTS[extent]}"
        case Count(subject, least, most):
            return f"{_subject(subject)} has {_count(least, most)}"
        case SameAs(subject, other):
            return f"{_subject(subject)} is the same as {_subject(other)}"
        case Received(windows):
            spans = ", ".join(map(_span, windows.spans))
            return f"received {spans} ({windows.zone})"
        case AllOf(conditions):
            return _joined(conditions, " and ")
        case AnyOf(conditions):
            return _joined(conditions, " or ")
        case Not(inner):
            return f"not ({condition(inner)})"
        case Named(name):
            return f"it is {name}"


def _joined(conditions: Sequence[Condition], word: str) -> str:
    if len(conditions) == 1:
        return condition(conditions[0])
    return word.join(map(_inner, conditions))


def _inner(value: Condition) -> str:
    text = condition(value)
    several = isinstance(value, AllOf | AnyOf) and len(value.conditions) > 1
    return f"({text})" if several else text


_EXTENTS = {
    "present": "is there",
    "absent": "is not there",
    "empty": "is empty",
    "valued": "has a value",
}


def _subject(subject: Subject) -> str:
    if isinstance(subject, str):
        return subject.replace("_", " ").replace("ae", "AE")
    if any(isinstance(step, Private) or not keyword_for_tag(step) for step in subject.path):
        return label_of(subject)
    name = ".".join(keyword_for_tag(step) for step in subject.path if isinstance(step, int))
    return f"{name}[{subject.position}]" if subject.position else name


def _patterns(subject: Subject, patterns: tuple[Pattern, ...]) -> str:
    if not _may_be_shown(subject):
        listed = [f"in the list {p.name}" for p in patterns if isinstance(p, Listed)]
        others = len(patterns) - len(listed)
        hidden = [f"one of {others} values" if others > 1 else "a value"] if others else []
        return " or ".join((*listed, *hidden))
    shown = [_pattern(pattern) for pattern in patterns[:_LONGEST]]
    more = len(patterns) - len(shown)
    return ", ".join(shown) + (f" or one of {more} more" if more else "")


def _may_be_shown(subject: Subject) -> bool:
    if not isinstance(subject, Attribute):
        return True
    return len(subject.path) == 1 and subject.path[0] in _HARMLESS


def _pattern(pattern: Pattern) -> str:
    match pattern:
        case Exact(text) | Glob(text):
            return text
        case Affix(where, text):
            return f"what {where} {'with ' if where != 'contains' else ''}{text}"
        case Regex(text):
            return f"/{text}/"
        case Folded(inner):
            return _pattern(inner)
        case Network(network):
            return str(network)
        case Listed(name):
            return f"in the list {name}"
        case Interval():
            return "in a range"
        case _:
            return "a name"


def _count(least: int, most: int | None) -> str:
    if most is None:
        return f"{least} values or more"
    return f"{least} values" if least == most else f"{least} to {most} values"


def _span(span: Span) -> str:
    clock = f"{_clock(span.start)}-{_clock(span.end)}"
    if len(span.days) == len(_DAYS):
        return clock
    return f"{','.join(_DAYS[day] for day in span.days)} {clock}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
