"""Rules from other files: ``include:`` in the list of rules.

Owns where the included rules stand in the order, and that a file is included once.  Must not
open a file: whoever loads the rules hands in how files are read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rules.actions import check_keys, text_of
from rules.source import MappingNode, Node, Problem, Problems, ScalarNode, SequenceNode, kind, parse

Read: TypeAlias = Callable[[str], Sequence[tuple[str, bytes]]]
"""The files that a pattern such as ``rules.d/*.yaml`` names: name and content, sorted by name.

Raises Problems for what cannot be read.
"""
Prepare: TypeAlias = Callable[[Node], tuple[Node, list[Problem]]]
"""What is done to the tree of a file before it is understood, and what went wrong in that."""


@dataclass(slots=True)
class Includer:
    """Puts the rules of included files in their places."""

    read: Read | None
    prepare: Prepare | None
    problems: list[Problem]
    _seen: set[str] = field(default_factory=set)

    def rules(self, node: SequenceNode) -> Iterator[Node]:
        """The nodes of all rules, in order."""
        for item in node.items:
            if isinstance(item, MappingNode) and "include" in item.entries:
                yield from self._include(item)
            else:
                yield item

    def _report(self, node: Node, message: str, fix: str = "") -> None:
        self.problems.append(node.problem(message, fix))

    def _include(self, node: MappingNode) -> Iterator[Node]:
        check_keys(node, ("include",), "an include", self._extra)
        value = node.entries["include"][1]
        for pattern in value.items if isinstance(value, SequenceNode) else (value,):
            text = text_of(pattern)
            if text is None or not isinstance(pattern, ScalarNode):
                fix = "include: rules.d/*.yaml"
                self._report(pattern, f"include takes the name of a file, not {kind(pattern)}", fix)
            elif self.read is None:
                self._report(pattern, "rules from other files cannot be included here")
            else:
                yield from self._files(pattern, text, self.read)

    def _extra(self, node: Node, message: str, fix: str) -> None:
        self._report(node, message, "an include stands alone in its item of the list")

    def _files(self, pattern: ScalarNode, text: str, read: Read) -> Iterator[Node]:
        try:
            files = read(text)
        except Problems as error:
            for problem in error.problems:  # of files as a whole: the hand must go here
                self._report(pattern, f"{problem.file} {problem.message}", problem.fix)
            return
        if not files:
            fix = "the name is taken from the directory of the configuration file"
            self._report(pattern, f"no file is called {pattern.shown}", fix)
        for name, data in files:
            if name in self._seen:
                self._report(pattern, f"{name} is included twice", "leave it out here")
                continue
            self._seen.add(name)
            yield from self._items(name, data)

    def _items(self, name: str, data: bytes) -> Iterator[Node]:
        if not any(_counts(line) for line in data.removeprefix(b"\xef\xbb\xbf").splitlines()):
            return  # every rule is commented out
        try:
            node = parse(data, name)
        except Problems as error:
            self.problems.extend(error.problems)
            return
        if self.prepare is not None:
            node, problems = self.prepare(node)
            self.problems.extend(problems)
        if not isinstance(node, SequenceNode):
            fix = "start each rule with '- name: ...', without 'rules:' above"
            self._report(node, f"an included file must be a list of rules, not {kind(node)}", fix)
            return
        for item in node.items:
            if isinstance(item, MappingNode) and "include" in item.entries:
                message = "an included file cannot include another"
                self._report(item.key("include"), message, "include it in the configuration file")
            else:
                yield item


def _counts(line: bytes) -> bool:
    return line.strip() not in (b"", b"---") and not line.lstrip().startswith(b"#")
