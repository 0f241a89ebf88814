"""YAML text to a tree of nodes that remember where they stood.

Owns the reading of YAML: positions, limits, and the promise that a scalar stays the text that a
person wrote, so that the traps of YAML 1.1 (`NO` as false, `08` as an error, `11:12` as 672) do
not exist.  Whoever needs a number or a truth value asks for it.  Must not know any key.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import yaml

MAX_TEXT = 4 * 2**20
"""Characters of a file."""
MAX_NODES = 200_000
"""Nodes of a file with every alias written out, so that aliases cannot multiply."""
MAX_DEPTH = 32

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
_ESCAPE = re.compile(r"\\U([0-9A-Fa-f]{8})")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))
_QUOTE = "put the value in quotes"
_CURLY = "\u201c\u201d\u201e\u2018\u2019\u201a"
CURLY_FIX = "its curly quotes are letters to YAML: write straight ones, \" or '"
"""What mends a value that a word processor put in quotes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration, where it is and what would mend it.

    ``line`` and ``column`` count from 1; 0 stands for the file as a whole.
    """

    file: str
    line: int
    column: int
    message: str
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}" + (f"; {self.fix}" if self.fix else "")


class Problems(Exception):
    """Everything that is wrong with a configuration, in the order of the text, each once.

    ``texts`` are the files that may be shown with it, by the names that the problems carry.
    """

    def __init__(
        self, problems: Iterable[Problem], texts: Mapping[str, bytes] | None = None
    ) -> None:
        self.texts = dict(texts or {})
        unique = dict.fromkeys(problems)
        self.problems = tuple(sorted(unique, key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class _Placed:
    file: str
    line: int
    column: int

    def problem(self, message: str, fix: str = "") -> Problem:
        """A problem at this place."""
        return Problem(self.file, self.line, self.column, message, fix)


@dataclass(frozen=True, slots=True)
class ScalarNode(_Placed):
    """``text`` is the value; ``written`` is what the file has, for messages.

    The two differ where an environment variable was put in, whose value messages must not show.
    """

    text: str
    quoted: bool = False
    written: str = ""

    def problem(self, message: str, fix: str = "") -> Problem:
        """A problem at this place; curly quotes around the value are what is to be mended."""
        fix = CURLY_FIX if curly(self.written) else fix
        return Problem(self.file, self.line, self.column, message, fix)

    @property
    def is_null(self) -> bool:
        """Left empty, or one of YAML's words for nothing without quotes."""
        return not self.quoted and self.written == self.text and self.text in _NULLS

    @property
    def boolean(self) -> bool | None:
        """The truth value, or None when the text is not one."""
        word = self.text.lower()
        return True if word in _TRUE else False if word in _FALSE else None

    @property
    def shown(self) -> str:
        """The value in quotes, as a message may show it."""
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.written)
        return f"'{text}'"


@dataclass(frozen=True, slots=True)
class SequenceNode(_Placed):
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class MappingNode(_Placed):
    """``entries`` maps a key's text to the key's own node and its value, in the file's order."""

    entries: dict[str, tuple[ScalarNode, "Node"]]

    def get(self, key: str) -> "Node | None":
        entry = self.entries.get(key)
        return entry[1] if entry else None

    def key(self, key: str) -> ScalarNode:
        return self.entries[key][0]


def curly(text: str) -> bool:
    """Whether a text begins or ends with a quote as word processors make them."""
    return text.strip()[:1] in tuple(_CURLY) or text.strip()[-1:] in tuple(_CURLY)


Node: TypeAlias = ScalarNode | SequenceNode | MappingNode


def kind(node: Node) -> str:
    """The sort of a node in the words of a message."""
    match node:
        case MappingNode():
            return "a mapping"
        case SequenceNode():
            return "a list"
        case ScalarNode():
            return "nothing" if node.is_null else node.shown


def plain(node: Node) -> object:
    """The tree without its positions: dict, list, str, and None for what was left empty."""
    match node:
        case MappingNode():
            return {key: plain(value) for key, (_, value) in node.entries.items()}
        case SequenceNode():
            return [plain(item) for item in node.items]
        case ScalarNode():
            return None if node.is_null else node.text


def parse(text: str | bytes, file: str) -> Node:
    """The one document of ``text``.  ``file`` is the name that problems carry.

    Raises Problems: text that is no YAML, duplicate keys, tags, more than one document, or more
    than the limits of this module.
    """
    if isinstance(text, bytes):
        text = _decode(text, file)
    if len(text) > MAX_TEXT:
        raise Problems([Problem(file, 0, 0, f"is larger than {MAX_TEXT} characters")])
    composer = _Composer(file, yaml.parse(text, Loader=yaml.SafeLoader))
    try:
        node = composer.document()
    except yaml.YAMLError as error:
        raise Problems([*composer.problems, _syntax_problem(error, text, file)]) from None
    except (ValueError, OverflowError) as error:  # PyYAML checks no number before it is used
        raise Problems([*composer.problems, _number_problem(error, text, file)]) from None
    if composer.problems:
        raise Problems(composer.problems)
    return node


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        problem = Problem(file, line, column, "is not UTF-8", "save the file as UTF-8")
        raise Problems([problem]) from None


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return Problem(file, line, column, "a control character that YAML does not allow")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    opened = getattr(error, "context_mark", None) or mark
    what = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None) or ""
    if mark is None or opened is None:
        return Problem(file, 0, 0, what)
    if (slip := _slip(what, context, text, mark.line, mark.column, opened.line)) is not None:
        return Problem(file, *slip)
    fix = ""
    if "'\\t'" in what:
        what, fix = "a tab where YAML wants spaces", "indent with spaces"
    elif "block scalar" in context:
        mark, what, fix = opened, f"a value that begins with {_at(text, opened.index)}", _QUOTE
    elif context in ("while scanning a tag", "while parsing a tag"):
        mark, what, fix = opened, "a value that begins with !", _QUOTE
    elif "mapping values are not allowed" in what:
        fix = "put the value in quotes if it contains ': ', or check the indentation"
    elif "expected <block end>" in what:
        fix = "check the indentation of this line against the ones above"
        if text[text.rfind("\n", 0, mark.index) + 1 : mark.index].strip():
            what, fix = "more text after the end of a value", "put the whole value in quotes"
    elif what.endswith("but got '{'") and text[mark.index - 1 : mark.index] == "$":
        what, fix = "braces in braces", 'inside braces or brackets "${...}" stands in quotes'
    elif what.endswith("but got '<stream end>'") or "unexpected end of stream" in what:
        mark, what, fix = opened, "what is opened here is not closed", "add the bracket or quote"
    elif what.startswith("expected ',' or") and opened.line < mark.line:
        mark, what = opened, "what is opened here is not closed"
        fix = "add the bracket, or put the value in quotes"
    elif "expected alphabetic or numeric character" in what:
        mark, what, fix = opened, "* and & begin aliases and anchors", _QUOTE
    elif "cannot start any token" in what or "alias" in what:
        fix = _QUOTE
    return Problem(file, mark.line + 1, mark.column + 1, what, fix)


def _at(text: str, index: int) -> str:
    return text[index : index + 1]


_BARE = re.compile(r"(?P<before>\s*(?:- +)?)(?P<key>[A-Za-z_]\w*)(?P<rest>(?: [^:#]*)?)")


def _slip(
    what: str, context: str, text: str, line: int, column: int, opened: int
) -> tuple[int, int, str, str] | None:
    """A colon left out, or a dash too many: the parser stumbles in a later line."""
    lines = text.splitlines()
    if "expected ':'" in what or "mapping values are not allowed" in what:
        # The key is in the line where the simple key began, or the one above.
        for number in range(min(line, len(lines) - 1), max(min(opened, line - 1), 0) - 1, -1):
            bare = _BARE.fullmatch(lines[number].rstrip())
            if bare is not None and ("expected ':'" in what or not bare["rest"]):
                key = bare["key"]
                fix = f"write {key}:{bare['rest']}"
                where = len(bare["before"]) + 1
                return number + 1, where, f"a colon is missing after {key!r}", fix
    if "expected <block end>" in what and line:
        above = next((each for each in reversed(lines[:line]) if each.strip()), "")
        here = lines[line] if line < len(lines) else ""
        dashed, dash = (each.lstrip().startswith("- ") for each in (here, above))
        if dashed != dash and _indent(here) == _indent(above) == column:
            which = line + 1 if dashed else line
            fix = "drop the dash, or give every line here one"
            return which, column + 1, "a list and a mapping in one place", fix
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _number_problem(error: Exception, text: str, file: str) -> Problem:
    for escape in _ESCAPE.finditer(text):
        if int(escape[1], 16) > sys.maxunicode:
            line = text.count("\n", 0, escape.start()) + 1
            column = escape.start() - text.rfind("\n", 0, escape.start())
            fix = "the last one is \\U0010FFFF"
            return Problem(file, line, column, f"{escape[0]} is no character", fix)
    return Problem(file, 0, 0, f"a number that cannot be read: {error}")


class _Composer:
    """Builds nodes from parser events; the parser itself does not recurse, so depth is ours."""

    def __init__(self, file: str, events: Iterator[yaml.Event]) -> None:
        self._file = file
        self._events = events
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0
        self.problems: list[Problem] = []

    def document(self) -> Node:
        node: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent) and node is not None:
                self._fail(event, "a second document", "keep one document in the file")
            if isinstance(event, yaml.NodeEvent):
                node = self._node(event, 0)
        if node is None:
            raise Problems([Problem(self._file, 0, 0, "is empty")])
        return node

    def _fail(self, event: yaml.Event, message: str, fix: str = "") -> None:
        raise Problems([*self.problems, self._place(event).problem(message, fix)])

    def _place(self, event: yaml.Event) -> _Placed:
        mark = event.start_mark
        assert mark is not None  # The reader of a text always sets it.
        return _Placed(self._file, mark.line + 1, mark.column + 1)

    def _node(self, event: yaml.NodeEvent, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > MAX_DEPTH:
            self._fail(event, f"nested deeper than {MAX_DEPTH} levels")
        before = self._count
        self._add(event, 1)
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN_TAGS:
            fix = "put the value in quotes if it begins with !" if tag.startswith("!") else ""
            self.problems.append(self._place(event).problem(f"the tag {tag!r} is not allowed", fix))
        node: Node
        if isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, depth)
        else:
            assert isinstance(event, yaml.ScalarEvent)
            node = self._scalar(event)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            # Only now: an alias inside what it names would have no end.
            self._anchors[anchor] = (node, self._count - before)
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            raise Problems(
                [
                    *self.problems,
                    self._place(event).problem(
                        f"*{event.anchor} is an alias for which no anchor stands before it",
                        "put a value that starts with * in quotes",
                    ),
                ]
            )
        node, size = known
        self._add(event, size)
        return node

    def _add(self, event: yaml.Event, nodes: int) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            self._fail(event, f"more than {MAX_NODES} values, with aliases written out")

    def _scalar(self, event: yaml.ScalarEvent) -> ScalarNode:
        place = self._place(event)
        quoted = event.style is not None or event.tag is not None
        if event.anchor is not None and not quoted and event.value in _NULLS:
            message = f"&{event.anchor} is an anchor with no value behind it"
            self.problems.append(place.problem(message, "put a value that starts with & in quotes"))
        if half := _SURROGATE.search(event.value):
            # It has no encoding: in a rule's name it would fail every record that names the rule.
            self.problems.append(
                place.problem(
                    f"\\u{ord(half[0]):04x} is half a character",
                    "write the character itself, or \\U and its eight digits",
                )
            )
        return ScalarNode(
            place.file, place.line, place.column, event.value, quoted, written=event.value
        )

    def _sequence(self, event: yaml.SequenceStartEvent, depth: int) -> SequenceNode:
        items: list[Node] = []
        for inner in self._events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            assert isinstance(inner, yaml.NodeEvent)
            items.append(self._node(inner, depth + 1))
        place = self._place(event)
        return SequenceNode(place.file, place.line, place.column, tuple(items))

    def _mapping(self, event: yaml.MappingStartEvent, depth: int) -> MappingNode:
        entries: dict[str, tuple[ScalarNode, Node]] = {}
        merged: list[tuple[ScalarNode, Node]] = []
        for inner in self._events:
            if isinstance(inner, yaml.MappingEndEvent):
                break
            assert isinstance(inner, yaml.NodeEvent)
            key = self._node(inner, depth + 1)
            value = self._node(self._next_node(), depth + 1)
            if not isinstance(key, ScalarNode):
                self.problems.append(key.problem(f"a key must be text, not {kind(key)}"))
            elif key.text == "<<" and not key.quoted:
                merged.append((key, value))
            elif key.text in entries:
                first = entries[key.text][0]
                self.problems.append(
                    key.problem(f"duplicate key {key.shown}", f"it is set in line {first.line}")
                )
            else:
                entries[key.text] = (key, value)
        for key, value in merged:
            self._merge(entries, key, value)
        place = self._place(event)
        return MappingNode(place.file, place.line, place.column, entries)

    def _next_node(self) -> yaml.NodeEvent:
        event = next(self._events)
        assert isinstance(event, yaml.NodeEvent)
        return event

    def _merge(
        self, entries: dict[str, tuple[ScalarNode, Node]], key: ScalarNode, value: Node
    ) -> None:
        """YAML's merge key: what the mapping sets itself wins, then the earlier source."""
        for source in value.items if isinstance(value, SequenceNode) else (value,):
            if isinstance(source, MappingNode):
                for name, entry in source.entries.items():
                    entries.setdefault(name, entry)
            else:
                self.problems.append(
                    key.problem(f"<< needs a mapping to merge, not {kind(source)}")
                )
