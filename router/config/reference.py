"""The configuration's reference page, from the models that are the one place of its facts.

``python -m router.config.reference`` prints what ``docs/reference/configuration.md`` must hold.
"""

import sys
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from router.config.changes import NEEDS_RESTART
from router.config.explain import literals, model_of
from router.config.model import Config, one_or_more
from router.config.reference_rules import rules_section
from router.net.limits import by_window, parse_priority
from router.units import parse_duration, parse_rate, parse_size

_IN_WORDS = {"rules": "rules", "conditions": "when"}
"""Keys of the file whose sections are written by hand."""
_HEAD = """\
# Configuration

<!-- Generated: python -m router.config.reference > docs/reference/configuration.md -->

One YAML file, named by `--config` or `DCMROUTER_CONFIG`. `dcmrouter check` reads it as `serve`
does and reports every mistake with file, line and column; a file with a mistake never takes
effect, and at a reload the old configuration stays.

- `${NAME}` in a value is replaced by that environment variable; one that is not set is a
  mistake. Inside braces and brackets it needs quotes, as in `{host: "${PACS_HOST}"}`. `$${`
  stands for the characters `${`.
- Durations are written `500ms`, `30s`, `5m`, `2h` or `7d` (a bare number means seconds), sizes
  `512KiB`, `64MiB` or `2GB` (a bare number means bytes), bandwidths `512kbit/s`, `20Mbit/s`,
  `2MB/s` or `unlimited`, rates `5/s`, `30/min` or `1000/h` (a bare number means per second),
  priorities `low` (-10), `normal` (0), `high` (10), `urgent` (20) or a number from -100 to 100.
- Text needs no quotes to stay text: `ae_title: 0123` and `ae_title: NO` are what they look like.
  Quotes are needed where YAML reads a character otherwise: `*`, `&`, `!`, `[`, `{`, `#`, `: `.
- A section that is left empty has its defaults. Anchors, aliases and `<<` work.
- An unknown key is a mistake, and so is the same key twice.
- Names of included files and of lists are taken from the directory of this file.

`dcmrouter check` also warns of what is allowed and hardly meant: rules that can never match,
names that nothing uses. An editor that knows JSON Schema completes the file with
`router/config/schema.json`.
"""


def page() -> str:
    """The whole page."""
    sections = list(_sections(Config, ""))
    restart = ", ".join(f"`{name}`" for name in NEEDS_RESTART)
    tail = (
        "## What a reload cannot change\n\n"
        f"{restart}: a reload that changes one of them is refused as a whole and says so; "
        "restart the gateway instead.\n"
    )
    return "\n".join([_HEAD, *sections, rules_section(), tail])


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    lines = [f"## {path or 'The file'}", ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    lines += [_row(name, field, path) for name, field in model.model_fields.items()]
    yield "\n".join([*lines, ""])
    for name, field in model.model_fields.items():
        inner, suffix = _inner_model(field.annotation)
        if inner is not None:
            yield from _sections(inner, f"{path}.{name}{suffix}" if path else f"{name}{suffix}")


def _inner_model(annotation: object) -> tuple[type[BaseModel] | None, str]:
    if (inner := model_of(annotation)) is not None:
        return inner, ""
    for argument in get_args(annotation):
        if (inner := model_of(argument)) is not None:
            return inner, ".NAME" if get_origin(annotation) is not tuple else "[]"
    return None, ""


def _row(name: str, field: FieldInfo, path: str) -> str:
    inner, suffix = _inner_model(field.annotation)
    if name in _IN_WORDS or inner is not None:
        what = "list" if suffix == "[]" or name == "rules" else "mapping"
        anchor = _IN_WORDS.get(name) or (f"{path}.{name}{suffix}" if path else f"{name}{suffix}")
        value, default = f"{what}, see [{anchor}](#{_anchor(anchor)})", ""
        if field.is_required():
            default = "required"
    else:
        value, default = _value(field), _default(field)
    meaning = (field.description or "").replace("|", r"\|")
    return f"| `{name}` | {value} | {default} | {meaning} |"


def _anchor(heading: str) -> str:
    return "".join(c for c in heading.lower() if c.isalnum() or c in "-_")


def _value(field: FieldInfo) -> str:
    converter = next((m.func for m in _metadata(field) if isinstance(m, BeforeValidator)), None)
    if words := literals(field.annotation):
        text = ", ".join(f"`{word}`" for word in words)
        return f"list or {text}" if "tuple" in str(field.annotation) else text
    if "tuple" in str(field.annotation):
        text = "text or list" if converter is one_or_more else "list"
    elif converter is by_window:
        text = "bandwidth or mapping"
    elif converter in (parse_rate, parse_priority):
        text = "rate" if converter is parse_rate else "priority"
    elif converter is parse_duration:
        text = "duration"
    elif converter is parse_size:
        text = "size"
    else:
        kinds: dict[object, str] = {bool: "true or false", int: "whole number", float: "number"}
        plain = [a for a in (get_args(field.annotation) or (field.annotation,)) if a in kinds]
        text = kinds[plain[0]] if plain else "text"
    human = _size if converter is parse_size else _seconds if converter is parse_duration else _bare
    return text + _bounds(field, human)


def _bounds(field: FieldInfo, human: Any) -> str:
    bounds = []
    for item in _metadata(field):
        if isinstance(item, Ge) and item.ge != 0:
            bounds.append(f"at least {human(item.ge)}")
        elif isinstance(item, Gt):
            bounds.append(f"more than {_bare(item.gt)}")
        elif isinstance(item, Le):
            bounds.append(f"at most {human(item.le)}")
        elif isinstance(item, MinLen):
            bounds.append(f"at least {item.min_length}")
    return f", {', '.join(bounds)}" if bounds else ""


def _metadata(field: FieldInfo) -> list[Any]:
    """What pydantic took off the outermost Annotated, and what sits beneath `| None`."""
    found = list(field.metadata)
    for argument in get_args(field.annotation):
        if get_origin(argument) is Annotated:
            for item in get_args(argument)[1:]:
                found.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return found


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), {}):
        return "none"
    if value == "":
        return "the machine's"
    converters = {m.func for m in _metadata(field) if isinstance(m, BeforeValidator)}
    if parse_size in converters:
        return f"`{_size(value)}`"
    if parse_duration in converters:
        return f"`{_seconds(value)}`"
    if str(value) == "data":
        return "`./data`"
    return f"`{_bare(value)}`"


def _size(value: float) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= factor and value % factor == 0:
            return f"{value // factor:g}{unit}"
    return f"{value:g}"


def _seconds(value: float) -> str:
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if value >= factor and value % factor == 0:
            return f"{value / factor:g}{unit}"
    return f"{value:g}s"


def _bare(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(page())
