"""The part of the JSON Schema that no model tells: rules and their conditions.

Owns the shape of what `rules.parse` reads, as far as JSON Schema can say it.  It may let a mistake
pass, which loading finds; it must not refuse what loading takes.
"""

from typing import Any, get_args

from rules.actions import GROUPS, MAX_WEIGHT, TAG
from rules.conditions import WORDS
from rules.operators import COMPARISONS, OPERATORS
from rules.rule import FACTS, After, By, OnRefusal
from rules.sending import MAX_PRIORITY, PRIORITIES
from rules.uids import names

Schema = dict[str, Any]

VARIABLE: Schema = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
"""A value that the environment gives."""
COMMON_ATTRIBUTES = (
    "AccessionNumber",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "ImageType",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "IssuerOfPatientID",
    "Laterality",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "PatientAge",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PerformedStationAETitle",
    "PresentationIntentType",
    "ProtocolName",
    "ReferringPhysicianName",
    "RequestAttributesSequence.ScheduledProcedureStepID",
    "SeriesDescription",
    "SeriesNumber",
    "SliceThickness",
    "StationName",
    "StudyDate",
    "StudyDescription",
    "StudyID",
)
"""What an editor offers; any other attribute is taken as well."""

_VALUE: Schema = {"type": ["string", "number", "boolean"]}
_SOME: Schema = {"type": "array", "minItems": 1, "items": _VALUE}
_NAMES: Schema = {"anyOf": [_VALUE, _SOME]}
_TRUTH: Schema = {"anyOf": [{"type": "boolean"}, VARIABLE]}
_DURATION: Schema = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|min|h|d)?\s*$"},
        VARIABLE,
    ]
}
_REASON: Schema = {"anyOf": [{"const": True}, {"type": "string", "pattern": r"\S"}]}
_STEP = (
    r"([A-Z][A-Za-z0-9]+|\([0-9A-Fa-f]{4},\s*[0-9A-Fa-f]{4}\)|[0-9A-Fa-f]{4},?[0-9A-Fa-f]{4}"
    r"|\(\s*[0-9A-Fa-f]{4}\s*,\s*(\"[^\"]+\"|'[^']+')\s*,\s*[0-9A-Fa-f]{2}\s*\))"
)
_ATTRIBUTE = rf"^\s*{_STEP}(\.{_STEP})*(\[\s*0*[1-9][0-9]*\s*\])?\s*$"


def rule_list(description: str) -> Schema:
    """What stands under ``rules:``."""
    either = [{"$ref": "#/$defs/Rule"}, {"$ref": "#/$defs/Include"}]
    return {"description": description, "type": ["array", "null"], "items": {"anyOf": either}}


def condition_map(description: str) -> Schema:
    """What stands under ``conditions:``."""
    return {
        "description": description,
        "type": ["object", "null"],
        "additionalProperties": {"$ref": "#/$defs/Conditions"},
    }


def definitions() -> dict[str, Schema]:
    """By their names."""
    return {
        "Rule": _rule(),
        "Include": _object(
            {"include": {**_NAMES, "description": "Files with more rules, as rules.d/*.yaml."}},
            required=["include"],
        ),
        "Target": {"anyOf": [_VALUE, *map(_group, GROUPS)]},
        "Send": _send(),
        "Conditions": _conditions(),
        "Values": {"anyOf": [_VALUE, _SOME, {"$ref": "#/$defs/Operators"}]},
        "Operators": _operators(),
    }


def _object(properties: Schema, **more: object) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def _rule() -> Schema:
    target: Schema = {"$ref": "#/$defs/Target"}
    ends = [{"required": [key]} for key in ("to", "discard", "hold")]
    moment = {"type": "string", "pattern": r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2}.*|\$\{.*)$"}
    label = {"anyOf": [{"type": "string", "pattern": f"^{TAG.pattern}$"}, {"type": "number"}]}
    return _object(
        {
            "name": {"type": ["string", "number"], "description": "For logs and messages."},
            "when": {
                "$ref": "#/$defs/Conditions",
                "description": "What must hold; left out, the rule matches everything.",
            },
            "to": {
                "description": "Where to send: a remote, a list of them, or a group of which one "
                "gets it.",
                "anyOf": [target, {"type": "array", "minItems": 1, "items": target}],
            },
            "send": {"$ref": "#/$defs/Send", "description": "How it is sent."},
            "tag": {
                "description": "Labels for later rules, the queue and metrics.",
                "anyOf": [label, {"type": "array", "minItems": 1, "items": label}],
            },
            "keep": {
                **_DURATION,
                "description": "For how long it stays in the spool once it is settled.",
            },
            "final": {**_TRUTH, "description": "No later rule is asked."},
            "discard": {**_REASON, "description": "Acknowledge and drop: true, or the reason."},
            "hold": {**_REASON, "description": "Keep until somebody decides: true or the reason."},
            "disabled": {
                "type": "string",
                "pattern": r"\S",
                "description": "The reason for which the rule is passed over.",
            },
            "valid": {
                **_object({"from": moment, "until": moment}, minProperties=1),
                "description": "From when on and until when the rule counts.",
            },
        },
        oneOf=[
            *ends,
            {
                "anyOf": [{"required": ["tag"]}, {"required": ["keep"]}],
                "not": {"anyOf": ends},
            },
        ],
    )


def _group(mode: str) -> Schema:
    more: Schema = {"keep": {"const": "study"}, "on_refusal": {"enum": list(get_args(OnRefusal))}}
    if mode == "balance":
        weight = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_WEIGHT}, VARIABLE]}
        more |= {
            "by": {"enum": list(get_args(By))},
            "weights": {"type": "array", "minItems": 2, "items": weight},
        }
    members = {"type": "array", "minItems": 2, "items": _VALUE}
    return _object({mode: members, **more}, required=[mode])


def _send() -> Schema:
    number = {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY}
    archive = _object({"archive": _VALUE, "wait": _DURATION}, required=["archive"])
    return _object(
        {
            "after": {"enum": list(get_args(After))},
            "quiet": {**_DURATION, "description": "Without a new instance, until it is complete."},
            "expect": {
                "description": "The archive that knows how many instances the study has.",
                "anyOf": [_VALUE, archive],
            },
            "schedule": {**_VALUE, "description": "The windows in which it is sent."},
            "priority": {"anyOf": [{"enum": list(PRIORITIES)}, number, VARIABLE]},
        },
        minProperties=1,
    )


def _conditions() -> Schema:
    values: Schema = {"$ref": "#/$defs/Values"}
    nested: Schema = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Conditions"}}
    known = {"sop_class": "SOP Class", "transfer_syntax": "Transfer Syntax"}
    facts: Schema = dict.fromkeys(map(str, FACTS), values)
    facts |= {fact: _choice(sort) for fact, sort in known.items()}
    schedule = _object({"in": _VALUE}, required=["in"])
    words = {
        "any": nested,
        "all": nested,
        "not": {"$ref": "#/$defs/Conditions"},
        "is": {**_NAMES, "description": "Conditions by name; any of them."},
        "received": {
            "description": 'When it comes: "mon-fri 18:00-07:00", a list, or {in: SCHEDULE}.',
            "anyOf": [{"type": "string"}, {**_SOME, "items": {"type": "string"}}, schedule],
        },
    }
    assert words.keys() == set(WORDS)
    return _object(
        {**facts, **words, **dict.fromkeys(COMMON_ATTRIBUTES, values)},
        description="All must hold. A list of values means any of them.",
        minProperties=1,
        patternProperties={_ATTRIBUTE: values},
    )


def _operators() -> Schema:
    properties = dict.fromkeys(OPERATORS, _NAMES)
    properties |= dict.fromkeys((*COMPARISONS, "count", "same_as"), _VALUE)
    properties |= dict.fromkeys(("present", "empty", "ignore_case", "absent"), _TRUTH)
    properties["between"] = {"type": "array", "minItems": 2, "items": _VALUE}
    return _object(properties, minProperties=1, description="All must hold.")


def _choice(sort: Any) -> Schema:
    one: Schema = {"anyOf": [{"enum": sorted(names(sort))}, {"type": "string"}]}
    several = {"type": "array", "minItems": 1, "items": one}
    return {"anyOf": [one, several, {"$ref": "#/$defs/Operators"}]}
