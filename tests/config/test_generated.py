"""The example, the schema and the reference page agree with the models."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from router.config import Problems, loads
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


_LOCAL = "local: [{ae_title: A, listen: x, accept: any}]\n"
_RULE = _LOCAL + "rules: [{to: a, %s}]\n"
SOUND: list[str] = [
    EXAMPLE,
    (
        "local: [{ae_title: A, listen: x, accept: any}]\n"
        "schedules: {night: {open: '18:00-07:00'}}\n"
        "network: {bandwidth_out: 1Gbit/s, max_associations_out: 100}\n"
        "remotes:\n"
        "  a: {ae_title: A, host: a, schedule: night, closing: stop, urgent: high, rate: 5}\n"
        "  b: {ae_title: B, schedule: night, urgent: -5, rate: 30/min, bandwidth: 2.5 MB/s}\n"
        "  c: {ae_title: C, bandwidth: {'mon-fri 07:00-18:00': 20Mbit/s, night: 512KiB/s,\n"
        "      else: unlimited}}\n"
    ),
    "local: [{ae_title: 12, listen: '[::]:104', accept: [NO, 10.0.0.0/8]}]\nspool:\n",
    (
        "local: [{ae_title: A, listen: '[::]:104', accept: any, transfer_syntaxes: [jpeg-2000]}]\n"
        "remotes: {p: {ae_title: P, host: h, port: '${PORT}', linger: 5m, max_pdu: 4096}}\n"
        "rules:\n"
        "  - to: [p]\n    final: true\n    when:\n"
        "      any: [{Modality: [CT, MR]}, {'(0019,1010)': x}]\n"
        "      not: {sop_class: [CTImageStorage, 1.2.3], Rows: 512}\n"
    ),
    (
        "local: [{ae_title: A, listen: '[::]:104', accept: any}]\n"
        "remotes:\n"
        "  p: {ae_title: P, host: h, preset: dcmtk, association_per: study, close_delay: 500ms,\n"
        "      transfer_syntaxes: [implicit-vr-le], never_send: ['*Waveform*', 1.2.3],\n"
        "      propose_role: scu}\n"
    ),
    (
        "local: [{ae_title: A, listen: '[::]:104', accept: any}]\n"
        "remotes:\n"
        "  p: {ae_title: P, host: h, commitment: true}\n"
        "  q: {ae_title: P, host: i, commitment: false}\n"
        "  r: {ae_title: P, host: j, commitment: {confirm: find, batch: 20, after: 5s}}\n"
        "  s: {ae_title: P, host: k, commitment: {}}\n"
    ),
    (
        "timezone: Europe/Stockholm\n"
        "local: [{ae_title: A, listen: x, accept: any}]\n"
        "lists: {trial: {file: trial.csv, column: 2, ignore_case: yes}, plain: {file: a.txt}}\n"
        "schedules:\n"
        "  night: {open: '18:00-07:00'}\n"
        "  weekend: {timezone: UTC, open: [sat 1:00-2:00]}\n"
        "conditions:\n"
        "  head CT: {Modality: CT, BodyPartExamined: [HEAD, BRAIN]}\n"
        "  old: {StudyDate: '< today-2y', not: {is: head CT}}\n"
        "rules:\n"
        "  - include: rules.d/*.yaml\n"
        "  - include: [a.yaml, b.yaml]\n"
        "  - name: x\n"
        "    when:\n"
        "      is: [head CT, old]\n"
        "      received: {in: night}\n"
        "      'ImageType[3]': LOCALIZER\n"
        "      RequestAttributesSequence.ScheduledProcedureStepID: '*'\n"
        "      '(0019,\"GEMS_ACQU_01\",10)': {present: true}\n"
        "      PatientID: {in: trial, not: [X, Y], ignore_case: true}\n"
        "      SliceThickness: {between: [1, 2.5], less: 3}\n"
        "      ImageType: {count: '> 2', same_as: FrameType}\n"
        "      sop_class: {not: CTImageStorage}\n"
        "    to: [p, {failover: [a, b]}, {balance: [c, d], by: patient, weights: [2, 1]}]\n"
        "    send: {after: study-complete, quiet: 2m, expect: {archive: p, wait: 30m},\n"
        "           schedule: night, priority: urgent}\n"
        "    tag: [night, head-CT]\n"
        "    valid: {from: 2026-11-01, until: 2027-01-01T18:00}\n"
        "    disabled: waiting for the VPN\n"
        "  - {hold: true, when: {received: [mon 8:00-9:00]}}\n"
        "  - {discard: no use, when: {tag: night}}\n"
        "  - {tag: seen}\n"
        "  - to: {first_available: [a, b]}\n"
        "    send: {priority: -5, quiet: 90, after: series-complete}\n"
    ),
]
UNSOUND: list[str] = [
    "local: []\n",
    "locals: []\n",
    "local: [{ae_title: A, listen: x, accept: any, max_associations: many}]\n",
    "local: [{ae_title: A, listen: x, accept: some}]\n",
    _LOCAL + "spool: {low_disk: plenty}\n",
    _LOCAL + "log: {level: loud}\n",
    _LOCAL + "remotes: {p: {ae_title: P, association_per: series}}\n",
    _LOCAL + "remotes: {p: {ae_title: P, transfer_syntaxes: []}}\n",
    _LOCAL + "remotes: {p: {ae_title: P, propose_role: scp}}\n",
    _LOCAL + "remotes: {p: {ae_title: P, host: h, commitment: 7}}\n",
    _LOCAL + "remotes: {p: {ae_title: P, host: h, commitment: {confirm: hope}}}\n",
    _LOCAL + "rules: [{when: {Modality: CT}}]\n",
    _LOCAL + "rules: [{to: a, discard: true}]\n",
    _LOCAL + "rules: [{to: a, tag: x, hold: true}]\n",
    _LOCAL + "rules: [{tag: a b}]\n",
    _LOCAL + "rules: [{include: a.yaml, to: a}]\n",
    _LOCAL + "rules: [{to: {failover: [a]}}]\n",
    _LOCAL + "rules: [{to: {failover: [a, b], by: study}}]\n",
    _LOCAL + "rules: [{to: {balance: [a, b], by: series}}]\n",
    _LOCAL + "rules: [{to: {balance: [a, b], weights: [0, 1]}}]\n",
    _RULE % "when: {modality: CT}",
    _RULE % "when: {any: {}}",
    _RULE % "when: {Modality: {is: CT}}",
    _RULE % "when: {Modality: {}}",
    _RULE % "when: {'ImageType[0]': X}",
    _RULE % "when: {received: {schedule: night}}",
    _RULE % "send: {}",
    _RULE % "send: {as: jpeg-2000}",
    _RULE % "send: {after: lunch}",
    _RULE % "send: {priority: 101}",
    _RULE % "send: {expect: {wait: 5m}}",
    _RULE % "disabled: true",
    _RULE % "valid: {}",
    _RULE % "valid: {from: 01.11.2026}",
    _RULE % "edit: {}",
    _LOCAL + "schedules: {night: {opens: 1}}\n",
    _LOCAL + "remotes: {a: {ae_title: A, bandwidth: 20}}\n",
    _LOCAL + "remotes: {a: {ae_title: A, bandwidth: {'07:00-18:00': 1MB/s}}}\n",
    _LOCAL + "remotes: {a: {ae_title: A, bandwidth: {else: fast}}}\n",
    _LOCAL + "remotes: {a: {ae_title: A, urgent: soon}}\n",
    _LOCAL + "remotes: {a: {ae_title: A, rate: 3/d}}\n",
    _LOCAL + "network: {bandwidth_out: 20Mbps}\n",
    _LOCAL + "schedules: {night: {open: []}}\n",
    _LOCAL + "lists: {trial: {column: 1}}\n",
    _LOCAL + "conditions: {x: CT}\n",
]
SHIPPED = sorted(
    path
    for directory in ("rules/examples", "docs", "router")
    for path in (ROOT / directory).rglob("*.yaml")
    if not path.name.endswith(".cases.yaml")
)


class _Loader(yaml.SafeLoader):
    """As editors read YAML: a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(document: str) -> Any:
    return yaml.load(document, _Loader)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_schema_passes_every_example(path: Path) -> None:
    document = _read(path.read_text("utf-8"))
    if isinstance(document, list):  # rules to include
        document = {**_read(_LOCAL), "rules": document}
    assert _valid(document, schema())


def test_there_are_examples() -> None:
    assert len(SHIPPED) >= 9


@pytest.mark.parametrize("document", SOUND)
def test_the_schema_passes_what_is_sound(document: str) -> None:
    assert _valid(_read(document), schema())


@pytest.mark.parametrize("document", UNSOUND)
def test_the_schema_refuses_what_is_not(document: str) -> None:
    assert not _valid(_read(document), schema())


@pytest.mark.parametrize("document", UNSOUND)
def test_what_the_schema_refuses_does_not_load(document: str) -> None:
    with pytest.raises(Problems):
        loads(document, "c.yaml", {})


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
    known |= {"additionalProperties", "minProperties", "$ref", "$defs", "$schema", "not"}
    known |= {"title", "description", "default", "format"}
    assert part.keys() <= known, part.keys() - known
    if "$ref" in part and not _valid(value, root["$defs"][part["$ref"].split("/")[-1]], root):
        return False
    if "anyOf" in part and not any(_valid(value, p, root) for p in part["anyOf"]):
        return False
    if "oneOf" in part and sum(_valid(value, p, root) for p in part["oneOf"]) != 1:
        return False
    if "not" in part and _valid(value, part["not"], root):
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
