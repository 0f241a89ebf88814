"""The example, the schema and the reference page agree with the models."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from router.config import loads
from router.config.model import Config
from router.config.reference import page
from router.config.schema import FILE, schema, text
from router.ingest.settings import StorageSettings
from router.net.settings import LocalAE, NetworkSettings, Remote, Retry
from router.spool.settings import SpoolSettings
from rules import Facts

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "config.example.yaml").read_text("utf-8")


def test_the_shipped_schema_is_up_to_date() -> None:
    assert FILE.read_text("utf-8") == text(), "python -m router.config.schema > " + FILE.name


def test_the_reference_page_is_up_to_date() -> None:
    written = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    assert written == page(), "python -m router.config.reference > docs/reference/configuration.md"


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("local[]", LocalAE),
        ("remotes.NAME", Remote),
        ("remotes.NAME.retry", Retry),
        ("spool", SpoolSettings),
        ("storage", StorageSettings),
        ("network", NetworkSettings),
    ],
)
def test_every_setting_stands_once_in_its_section(heading: str, model: type[BaseModel]) -> None:
    section = page().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert rows == list(model.model_fields)


@pytest.mark.parametrize(
    "row",
    [
        "| `segment_size` | size, at least 1MiB, at most 4GiB | `64MiB` |",
        "| `keep_settled` | duration | `1h` |",
        "| `duplicates` | `suppress`, `send` | `suppress` |",
        "| `max_associations` | whole number, at least 1 | none |",
        "| `patient_data` | true or false | `false` |",
        "| `accept` | list or `any` | required |",
        "| `data_dir` | text | `./data` |",
    ],
)
def test_values_and_defaults_are_written_as_people_write_them(row: str) -> None:
    assert row in page()


def test_every_link_of_the_reference_page_has_its_heading() -> None:
    headings = re.findall(r"^##+ (.+)$", page(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9_ -]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#([^)]+)\)", page())
    assert len(links) > 5
    assert set(links) <= anchors


def test_the_example_loads_without_a_warning() -> None:
    loaded = loads(EXAMPLE, "config.example.yaml", {})
    assert loaded.warnings == ()
    assert loaded.config.data_dir == Config.model_fields["data_dir"].default
    assert loaded.config.http == Config.model_fields["http"].get_default(call_default_factory=True)


@pytest.mark.parametrize(
    ("modality", "patient", "destinations"),
    [("CT", "1", ["sink-a", "sink-b"]), ("US", "1", ["sink-a"]), ("CT", "DISCARD-ME-1", [])],
)
def test_the_example_routes_as_it_says(
    modality: str, patient: str, destinations: list[str]
) -> None:
    rules = loads(EXAMPLE, "config.example.yaml", {}).rules
    decision = rules.decide(
        Facts("DEMO", "ROUTER", "", attributes={0x00080060: (modality,), 0x00100020: (patient,)})
    )
    assert [route.destination for route in decision.routes] == destinations


SOUND: list[str] = [
    EXAMPLE,
    "local: [{ae_title: 12, listen: '[::]:104', accept: [NO, 10.0.0.0/8]}]\nspool:\n",
    (
        "local: [{ae_title: A, listen: '[::]:104', accept: any, transfer_syntaxes: [jpeg-2000]}]\n"
        "remotes: {p: {ae_title: P, host: h, port: '${PORT}', linger: 5m, max_pdu: 4096}}\n"
        "rules:\n"
        "  - to: [p]\n    final: true\n    when:\n"
        "      any: [{Modality: [CT, MR]}, {'(0019,1010)': x}]\n"
        "      not: {sop_class: [CTImageStorage, 1.2.3], Rows: 512}\n"
    ),
]
UNSOUND: list[str] = [
    "local: []\n",
    "locals: []\n",
    "local: [{ae_title: A, listen: x, accept: any, max_associations: many}]\n",
    "local: [{ae_title: A, listen: x, accept: some}]\n",
    "local: [{ae_title: A, listen: x, accept: any}]\nspool: {low_disk: plenty}\n",
    "local: [{ae_title: A, listen: x, accept: any}]\nlog: {level: loud}\n",
    "local: [{ae_title: A, listen: x, accept: any}]\nrules: [{when: {Modality: CT}}]\n",
    "local: [{ae_title: A, listen: x, accept: any}]\nrules: [{to: a, discard: true}]\n",
    "local: [{ae_title: A, listen: x, accept: any}]\nrules: [{to: a, when: {modality: CT}}]\n",
    "local: [{ae_title: A, listen: x, accept: any}]\nrules: [{to: a, when: {any: {}}}]\n",
]


@pytest.mark.parametrize("document", SOUND)
def test_the_schema_passes_what_is_sound(document: str) -> None:
    assert _valid(yaml.safe_load(document), schema())


@pytest.mark.parametrize("document", UNSOUND)
def test_the_schema_refuses_what_is_not(document: str) -> None:
    assert not _valid(yaml.safe_load(document), schema())


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _valid(value: Any, part: Any, root: Any = None) -> bool:
    """Whether a value satisfies a schema, in the keywords of JSON Schema that ours uses."""
    root = part if root is None else root
    if part is True:
        return True
    known = {"anyOf", "oneOf", "const", "enum", "type", "pattern", "minimum", "maximum", "items"}
    known |= {"exclusiveMinimum", "minItems", "required", "properties", "patternProperties"}
    known |= {"additionalProperties", "minProperties", "$ref", "$defs", "$schema"}
    known |= {"title", "description", "default", "format"}
    assert part.keys() <= known, part.keys() - known
    if "$ref" in part and not _valid(value, root["$defs"][part["$ref"].split("/")[-1]], root):
        return False
    if "anyOf" in part and not any(_valid(value, p, root) for p in part["anyOf"]):
        return False
    if "oneOf" in part and sum(_valid(value, p, root) for p in part["oneOf"]) != 1:
        return False
    if "const" in part and value != part["const"]:
        return False
    if "enum" in part and value not in part["enum"]:
        return False
    if "type" in part:
        types = part["type"] if isinstance(part["type"], list) else [part["type"]]
        if not any(
            isinstance(value, _TYPES[t]) and (t == "boolean" or not isinstance(value, bool))
            for t in types
        ):
            return False
    if isinstance(value, str):
        return "pattern" not in part or re.search(part["pattern"], value) is not None
    if isinstance(value, int | float):
        return (
            value >= part.get("minimum", value)
            and value <= part.get("maximum", value)
            and ("exclusiveMinimum" not in part or value > part["exclusiveMinimum"])
        )
    if isinstance(value, list):
        items = part.get("items", True)
        return len(value) >= part.get("minItems", 0) and all(_valid(v, items, root) for v in value)
    return _valid_mapping(value, part, root) if isinstance(value, dict) else True


def _valid_mapping(value: dict[str, Any], part: Any, root: Any) -> bool:
    if not set(part.get("required", ())) <= value.keys():
        return False
    if len(value) < part.get("minProperties", 0):
        return False
    for key, inner in value.items():
        schemas = [part["properties"][key]] if key in part.get("properties", {}) else []
        schemas += [s for p, s in part.get("patternProperties", {}).items() if re.search(p, key)]
        others = part.get("additionalProperties", True)
        if not schemas and others is False:
            return False
        if not all(_valid(inner, s, root) for s in schemas or [others]):
            return False
    return True
