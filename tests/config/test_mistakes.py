"""Each mistake in mistakes.txt gives exactly its messages: file, line, column, fault, fix."""

from pathlib import Path

import pytest

from router.config import Problems, loads
from rules.source import MAX_DEPTH, MAX_NODES, MAX_TEXT

SOUND = {
    "@local\n": "local: [{ae_title: ROUTER, listen: 0.0.0.0:11112, accept: any}]\n",
    "@remotes\n": "remotes: {pacs: {ae_title: PACS, host: pacs.example}, "
    "ct-room-1: {ae_title: CT1}}\n",
    "@two\n": "remotes: {pacs: {ae_title: PACS, host: pacs.example}, "
    "archive: {ae_title: VNA, host: vna.example}}\n",
}


def _cases() -> list[tuple[str, str, list[str]]]:
    cases = []
    text = Path(__file__).with_name("mistakes.txt").read_text("utf-8")
    for case in text.split("=== ")[1:]:
        name, _, body = case.partition("\n")
        written, _, messages = body.rpartition("---\n")
        lines = messages.strip().splitlines()
        # A place in another file is written with its name.
        cases.append((name, written, [f"c.yaml{x}" if x[0] == ":" else x for x in lines]))
    return cases


CASES = _cases()


def _complain(text: str | bytes) -> list[str]:
    with pytest.raises(Problems) as caught:
        loads(text, "c.yaml", {"SECRET": "hunter2"})
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("written", "messages"), [c[1:] for c in CASES], ids=[c[0].replace(" ", "-") for c in CASES]
)
def test_message_is_exact(
    written: str, messages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written, *others = written.split("+++ ")
    for other in others:
        name, _, text = other.partition("\n")
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    for placeholder, line in SOUND.items():
        written = written.replace(placeholder, line)
    assert _complain(written) == messages


def test_there_are_many_and_each_has_its_own_name() -> None:
    names = [case[0] for case in CASES]
    assert len(set(names)) == len(names) > 180


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("data_dir: a\x07b\n", "c.yaml:1:12: a control character that YAML does not allow"),
        (b"data_dir: caf\xe9\n", "c.yaml:1:14: is not UTF-8; save the file as UTF-8"),
        ("a: " + "[" * 5000, f"c.yaml:1:36: nested deeper than {MAX_DEPTH} levels"),
        ("#" * (MAX_TEXT + 1), f"c.yaml: is larger than {MAX_TEXT} characters"),
        (
            "a: &a [1, *a]\n",
            (
                "c.yaml:1:11: *a is an alias for which no anchor stands before it; "
                "put a value that starts with * in quotes"
            ),
        ),
    ],
)
def test_hostile_text_is_a_problem_and_no_crash(written: str | bytes, message: str) -> None:
    assert _complain(written) == [message]


def test_an_anchor_and_an_alias_in_one_place() -> None:
    assert _complain("a: &a [1, 2]\nb: &b *a\n") == [
        (
            "c.yaml:2:4: &b is an anchor with no value behind it; "
            "put a value that starts with & in quotes"
        ),
        "c.yaml:2:7: more text after the end of a value; put the whole value in quotes",
    ]


def test_aliases_cannot_multiply_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert _complain("\n".join(lines)) == [
        f"c.yaml:6:10: more than {MAX_NODES} values, with aliases written out"
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    from router.config import load

    with pytest.raises(Problems, match=r"none\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml")


def test_a_secret_from_the_environment_is_not_shown() -> None:
    text = SOUND["@local\n"] + "network: {idle_timeout: '${SECRET}', max_pdu: '${SECRET}'}\n"
    assert "hunter2" not in "".join(_complain(text))
