"""Each mistake in mistakes_conditions.txt gives exactly its messages: line, column, fault, fix."""

from pathlib import Path

import pytest

from rules.conditions import ConditionParser
from rules.known import Known
from rules.source import Node, Problem, Problems, parse
from rules.window import parse_windows

TABLE = Path(__file__).with_name("mistakes_conditions.txt")
KNOWN = Known(
    remotes=("pacs", "ct-room-1"),
    destinations=("pacs",),
    conditions={
        "head": parse("BodyPartExamined: [HEAD, BRAIN]", "c.yaml"),
        "round": parse("{any: [{is: about}, {Modality: CT}]}", "c.yaml"),
        "about": parse("is: round", "c.yaml"),
    },
    lists={"trial": frozenset({"17"})},
    schedules={"after-hours": parse_windows(["18:00-07:00"], "UTC")},
)


def complaints(text: str) -> list[str]:
    """All that is wrong with a mapping under ``when:``."""
    problems: list[Problem] = []

    def report(node: Node, message: str, fix: str = "", /) -> None:
        problems.append(node.problem(message, fix))

    try:
        ConditionParser(KNOWN, report).mapping(parse(text, "c.yaml"), "when")
    except Problems as error:
        problems.extend(error.problems)
    return [str(problem).removeprefix("c.yaml") for problem in Problems(problems).problems]


def _cases() -> list[tuple[str, str, list[str]]]:
    cases = []
    for case in TABLE.read_text("utf-8").split("=== ")[1:]:
        name, _, body = case.partition("\n")
        written, _, messages = body.partition("---\n")
        cases.append((name, written, messages.strip().splitlines()))
    return cases


CASES = _cases()


@pytest.mark.parametrize(
    ("written", "messages"), [c[1:] for c in CASES], ids=[c[0].replace(" ", "-") for c in CASES]
)
def test_message_is_exact(written: str, messages: list[str]) -> None:
    assert messages, "a mistake must have a message"
    assert complaints(written) == messages


def test_there_are_many_and_each_has_its_own_name() -> None:
    names = [case[0] for case in CASES]
    assert len(set(names)) == len(names) > 100


def test_every_message_names_the_fix() -> None:
    assert [line for _, _, messages in CASES for line in messages if "; " not in line] == []


@pytest.mark.parametrize(
    "text", ["is: head", "received: {in: after-hours}", "PatientID: {in: trial}", "remote: pacs"]
)
def test_what_is_known_is_taken(text: str) -> None:
    assert complaints(text) == []
