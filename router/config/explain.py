"""From pydantic's errors to problems with a place in the file and words for an operator.

Owns the wording.  Must not know what any setting means.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from router.config.model import RESERVED_KEYS
from rules.nearest import did_you_mean, nearest
from rules.source import MappingNode, Node, Problem, ScalarNode, SequenceNode, kind

Path = tuple[str | int, ...]


def explain(error: ValidationError, model: type[BaseModel], root: Node) -> list[Problem]:
    """One problem for each thing that is wrong; ``root`` is the tree that was validated."""
    located = [_locate(detail, root) for detail in error.errors(include_url=False)]
    paths = {entry.path for entry in located}
    wrong = {entry.path for entry in located if entry.detail["type"] != "too_short"}
    misspelt = {(e.path[:-1], _meant(e, model)) for e in located if _is_unknown(e)}
    problems: list[Problem] = []
    for entry in located:
        kind_ = entry.detail["type"]
        # Another alternative came further, or the list is short of the very items that are wrong.
        deeper = any(_inside(path, entry.path) for path in paths)
        if (entry.branch or kind_ == "too_short") and deeper:
            continue
        if kind_ == "too_short" and entry.path in wrong:
            continue  # the one item, written without a list, is wrong
        if kind_ == "missing" and (entry.path, entry.rest[-1]) in misspelt:
            continue
        problems.append(_problem(entry, model))
    return problems


def _is_unknown(entry: "_Located") -> bool:
    return entry.detail["type"] == "extra_forbidden"


def _meant(entry: "_Located", model: type[BaseModel]) -> str | None:
    owner = _model_at(model, entry.path[:-1])
    return nearest(str(entry.path[-1]), owner.model_fields) if owner is not None else None


@dataclass(frozen=True, slots=True)
class _Located:
    """``rest`` is what of the location is not in the tree; ``branch``: one of alternatives.

    ``key`` is where the value's key stands, if it is a mapping's.
    """

    detail: ErrorDetails
    path: Path
    node: Node
    key: Node
    rest: Path
    branch: bool


def _locate(detail: ErrorDetails, root: Node) -> _Located:
    node, key = root, root
    path: Path = ()
    rest: Path = ()
    for part in detail["loc"]:
        if isinstance(node, MappingNode) and isinstance(part, str) and part in node.entries:
            key, path = node.key(part), (*path, part)
            node = node.entries[part][1]
        elif isinstance(node, SequenceNode) and isinstance(part, int):
            node, path = node.items[part], (*path, part)
            key = node
        else:
            rest = (*rest, part)
    return _Located(detail, path, node, key, rest, bool(rest) and detail["type"] != "missing")


def _inside(inner: Path, outer: Path) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _problem(entry: _Located, model: type[BaseModel]) -> Problem:
    place, node = dotted(entry.path), entry.node
    if entry.detail["type"] == "missing":
        return node.problem(f"{place or 'the file'} needs {str(entry.rest[-1])!r}")
    if _is_unknown(entry):
        return _unknown_key(entry, model)
    if entry.detail["type"] == "too_short":
        return node.problem(f"{place} needs at least one item")
    if entry.branch and entry.detail["type"] in ("tuple_type", "literal_error"):
        return node.problem(
            f"{place} must be a list{_alternatives(entry, model)}, not {kind(node)}"
        )
    words = _WORDS.get(entry.detail["type"])
    context: Mapping[str, Any] = entry.detail.get("ctx") or {}
    if words is None:
        error = context.get("error")
        text, fix = str(error or entry.detail["msg"]), ""
        if isinstance(error, ValueError) and len(error.args) == 2:
            text, fix = map(str, error.args)
        return node.problem(f"{place}: {_without_secret(text, node)}", _without_secret(fix, node))
    text = words(context) if callable(words) else words
    return node.problem(f"{place} must be {text}, not {kind(node)}")


def _without_secret(text: str, node: Node) -> str:
    if isinstance(node, ScalarNode) and node.text and node.text != node.written:
        for value in (node.text, node.text.strip()):
            text = text.replace(repr(value), node.shown).replace(value, node.written)
    return text


def _unknown_key(entry: _Located, model: type[BaseModel]) -> Problem:
    key = str(entry.path[-1])
    owner = _model_at(model, entry.path[:-1])
    place = dotted(entry.path[:-1])
    where = f" in {place}" if place else ""
    if owner is not None and key in RESERVED_KEYS.get(owner.__name__, ()):
        return entry.key.problem(f"{key!r}{where} is not available in this version")
    known = tuple(owner.model_fields) if owner is not None else ()
    fix = did_you_mean(key, known) or f"known are {', '.join(known)}"
    return entry.key.problem(f"unknown key {key!r}{where}", fix)


def _alternatives(entry: _Located, model: type[BaseModel]) -> str:
    owner = _model_at(model, entry.path[:-1])
    field = owner.model_fields.get(str(entry.path[-1])) if owner is not None else None
    words = literals(field.annotation) if field is not None else ()
    return "".join(f" or {word!r}" for word in words)


def literals(annotation: object) -> tuple[str, ...]:
    """The words that an annotation allows, those of a union's alternatives included."""
    arguments = get_args(annotation)
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return arguments
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(word for argument in arguments for word in literals(argument))
    return ()


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    annotation: object = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field is not None else None
        else:
            # tuple[X, ...] or Mapping[str, X]
            models = [a for a in get_args(annotation) if model_of(a) is not None]
            annotation = models[0] if models else None
        annotation = model_of(annotation) or annotation
    return model_of(annotation)


def model_of(annotation: object) -> type[BaseModel] | None:
    """The model that an annotation names, beneath Annotated and `| None`; or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        found = (model_of(argument) for argument in get_args(annotation))
        return next((model for model in found if model is not None), None)
    return None


def dotted(path: Path) -> str:
    """``local[0].listen``, as messages and the reference write it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_WHOLE = "a whole number"
_WORDS: Mapping[str, str | Callable[[Mapping[str, Any]], str]] = {
    "int_parsing": _WHOLE,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "greater_than": lambda ctx: f"more than {_number(ctx['gt'])}",
    "greater_than_equal": lambda ctx: f"at least {_number(ctx['ge'])}",
    "less_than_equal": lambda ctx: f"at most {_number(ctx['le'])}",
    "literal_error": lambda ctx: str(ctx["expected"]).replace("'", ""),
}


def _number(value: int | float) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    # Only sizes have bounds like these, and people write them with a unit.
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= 4 * 2**10 and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)
