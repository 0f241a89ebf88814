"""The JSON Schema of the configuration file, for editors to complete and check it.

``python -m router.config.schema`` prints what ``router/config/schema.json`` must hold.  The
schema is a help while writing: `router.config.load` alone decides, and finds more.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from router.config.model import Config, one_or_more
from router.config.schema_rules import VARIABLE, condition_map, definitions, rule_list
from router.net.commitment import switched
from router.net.limits import ELSE, by_window, parse_priority
from router.units import parse_bandwidth, parse_duration, parse_rate, parse_size
from rules.sending import MAX_PRIORITY, PRIORITIES

FILE = Path(__file__).with_name("schema.json")

_QUANTITY = r"^\s*[0-9]+(\.[0-9]+)?\s*(%s)?\s*$"
_BANDWIDTH = r"^(unlimited|\s*[0-9]+(\.[0-9]+)?\s*([kMG]bit|[kK]B|MB|GB|TB|[KMGT]iB)/s\s*)$"
_UNITS: dict[object, str] = {
    parse_duration: "ms|s|m|min|h|d",
    parse_size: "B|[kK]B|MB|GB|TB|[KMGT]iB",
    parse_rate: "/s|/m|/min|/h",
}


class _Generator(GenerateJsonSchema):
    """Pydantic's schema, widened by what the YAML reader accepts besides."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        function = schema["function"]["function"]
        if function is one_or_more:
            inner = self.generate_inner(schema["schema"])
            return {"anyOf": [{"type": "string"}, inner]}
        if function is switched:
            inner = self.generate_inner(schema["schema"])
            return {"anyOf": [{"type": "boolean"}, inner]}
        if function is by_window:
            inner = self.generate_inner(schema["schema"])
            one = inner["additionalProperties"]
            several = {**inner, "minProperties": 1, "required": [ELSE]}
            return {"anyOf": [one, several]}
        if function is parse_priority:
            words = {"enum": list(PRIORITIES)}
            numbers = {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY}
            return {"anyOf": [words, numbers, dict(VARIABLE)]}
        if function is parse_bandwidth:
            return {"anyOf": [{"type": "string", "pattern": _BANDWIDTH}, dict(VARIABLE)]}
        units = _UNITS.get(function)
        if units is None:
            return super().function_before_schema(schema)
        text = {"type": "string", "pattern": _QUANTITY % units}
        return {"anyOf": [{"type": "number", "minimum": 0}, text, dict(VARIABLE)]}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return {"anyOf": [super().int_schema(schema), dict(VARIABLE)]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), dict(VARIABLE)]}

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return {"anyOf": [super().bool_schema(schema), dict(VARIABLE)]}

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        # `ae_title: 1234` and `calling_ae: NO` are text to us, whatever YAML makes of them.
        return {"type": ["string", "number", "boolean"]}


def schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    result = Config.model_json_schema(schema_generator=_Generator)
    _tidy(result)
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    result["title"] = "dcmrouter configuration"
    properties = result["properties"]
    for key, shape in (("rules", rule_list), ("conditions", condition_map)):
        properties[key] = shape(properties[key]["description"])
    del properties["timezone"]["default"]  # it is the machine's
    for key in ("lists", "schedules"):
        properties[key]["type"] = ["object", "null"]
    # An empty section is one left to its defaults.
    for name, section in result["properties"].items():
        if "$ref" in section:
            result["properties"][name] = {"anyOf": [section, {"type": "null"}]}
    result["$defs"] |= definitions()
    used = _referenced(result, result["$defs"])
    result["$defs"] = {name: result["$defs"][name] for name in sorted(used)}
    return result


def text() -> str:
    """The schema as the shipped file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _tidy(node: object) -> None:
    """Takes out titles that only repeat the key, and bounds that JSON Schema does not know.

    Pydantic leaves the bounds of a value that it does not see as a number under their own names.
    """
    if isinstance(node, dict):
        for key in ("title", "ge", "gt", "le", "lt"):
            if not isinstance(node.get(key), dict):
                node.pop(key, None)
        for inner in node.values():
            _tidy(inner)
    elif isinstance(node, list):
        for inner in node:
            _tidy(inner)


def _referenced(node: object, definitions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    waiting: list[object] = [
        {key: value for key, value in node.items() if key != "$defs"}
        if isinstance(node, dict)
        else node
    ]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            name = str(current.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in found:
                found.add(name)
                waiting.append(definitions[name])
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)
    return found


if __name__ == "__main__":
    sys.stdout.write(text())
