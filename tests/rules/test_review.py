"""Rules that can never do anything are told, and no others."""

from datetime import UTC, datetime

import pytest

from rules import load
from rules.review import notes, warnings

NOW = datetime(2026, 11, 21, tzinfo=UTC).timestamp()


def _warned(*rules: str) -> list[str]:
    text = "".join(f"- {rule}\n" for rule in rules)
    return [str(problem) for problem in warnings(load(text, file="r.yaml"), "r.yaml", NOW)]


@pytest.mark.parametrize(
    ("rules", "warning"),
    [
        (
            ("{to: a, when: {Modality: [CT, MR]}, final: true}", "{to: b, when: {Modality: CT}}"),
            (
                "rule 'rule 2' is never reached; "
                "rule 'rule 1' in line 1 matches all that it would, and ends the decision"
            ),
        ),
        (
            ("{hold: true}", "{to: b}"),
            "rule 'rule 2' is never reached; rule 'rule 1' ends every decision in line 1",
        ),
        (
            ("{to: a, when: {Modality: CT}}", "{hold: x, when: {Modality: CT, calling_ae: A}}"),
            (
                "rule 'rule 2' never holds anything; "
                "rule 'rule 1' in line 1 routes all that it would match before it"
            ),
        ),
        (
            ("{to: a}", "{to: b, when: {all: [{Modality: CT}, {Modality: MR}]}}"),
            (
                "rule 'rule 2' can never match: "
                "its conditions on Modality (0008,0060) exclude each other"
            ),
        ),
        (
            ("{to: a}", "{to: b, valid: {until: 2026-01-01}}"),
            "rule 'rule 2' is over: it was valid until 2026-01-01; remove it or its 'until'",
        ),
        (
            ("{to: a}", "{to: b, when: {StudyID: '> 5'}}"),
            (
                "rule 'rule 2' compares StudyID (0020,0010), text of VR SH, as a number; "
                "a value that is no number never matches"
            ),
        ),
        (
            (
                "{to: a, final: true, valid: {from: 2026-01-01}}",
                "{to: b, valid: {from: 2027-01-01}}",
            ),
            (
                "rule 'rule 2' is never reached; "
                "rule 'rule 1' in line 1 matches all that it would, and ends the decision"
            ),
        ),
    ],
)
def test_told(rules: tuple[str, ...], warning: str) -> None:
    assert _warned(*rules) == [f"r.yaml:2:3: {warning}"]


@pytest.mark.parametrize(
    "rules",
    [
        ("{to: a, when: {Modality: CT}, final: true}", "{to: b, when: {Modality: [CT, MR]}}"),
        ("{to: a, final: true, disabled: later}", "{to: b}"),
        ("{to: a, final: true, valid: {from: 2026-01-01}}", "{to: b}"),
        ("{to: a, final: true, valid: {until: 2027-01-01}}", "{to: b, valid: {until: 2028-01-01}}"),
        ("{to: a, when: {Modality: CT}}", "{discard: true, when: {calling_ae: A}}", "{to: b}"),
        ("{tag: x}", "{to: a, when: {tag: x}, final: true}", "{to: b}"),
        (
            "{tag: x, when: {Modality: CT}}",
            "{to: a, when: {tag: x}, final: true}",
            "{tag: x}",
            "{to: b, when: {tag: x}}",
        ),
        ("{to: a}", "{to: b, valid: {until: 2026-11-22}}"),
        ("{to: a}", "{to: b, when: {SeriesNumber: '> 5'}}"),
    ],
)
def test_not_told(rules: tuple[str, ...]) -> None:
    assert _warned(*rules) == []


CODE = "a code has only A-Z, 0-9, space and _"
CURLY = "its curly quotes are letters to YAML: write straight ones, \" or '"


@pytest.mark.parametrize(
    ("when", "what", "fix"),
    [
        (
            "Modality: ct",
            f"'ct': {CODE}",
            "write CT, or {equals: ct, ignore_case: true} for either case",
        ),
        ("Modality: 'CT, MR'", f"'CT, MR': {CODE}", "write [CT, MR]"),
        ("Modality: 'CT,MR,PT'", f"'CT,MR,PT': {CODE}", "write [CT, MR, PT]"),
        ("Modality: CT or mr", f"'CT or mr': {CODE}", "write [CT, MR]"),
        ("Modality: CT|MR", f"'CT|MR': {CODE}", "write [CT, MR]"),
        ("Modality: not CT", f"'not CT': {CODE}", 'write "!= CT"'),
        ("Modality: not CT or MR", f"'not CT or MR': {CODE}", "write {not: [CT, MR]}"),
        ("Modality: [CT, 'M*r']", f"'M*r': {CODE}", "write M*R"),
        ("Modality: {starts: c}", f"'c': {CODE}", "write C"),
        ("any: [{Modality: C-T}]", f"'C-T': {CODE}", ""),
        ("Modality: ABCDEFGHIJKLMNOPQ", "a code has 16 characters at most", ""),
        ("Modality: '*ABCDEFGHIJKLMNOP?'", "a code has 16 characters at most", ""),
    ],
)
def test_a_code_that_there_cannot_be(when: str, what: str, fix: str) -> None:
    (told,) = _warned(f"{{to: a, when: {{{when}}}}}")
    assert told.startswith("r.yaml:1:3: rule 'rule 1': Modality (0008,0060) can hardly match "), (
        told
    )
    assert what in told
    assert fix in told if fix else told.endswith((CODE, "at most"))


@pytest.mark.parametrize(
    "when",
    [
        "Modality: CT",
        "ImageType: 'DERIVED*'",
        "Modality: '?T'",
        "BodyPartExamined: ABCDEFGHIJKLMNOP",
        "BodyPartExamined: '*ABCDEFGHIJKLMNOP*'",
        "BodyPartExamined: {equals: Head, ignore_case: true}",
        "BodyPartExamined: /head/",
        "BodyPartExamined: {contains: T_1 2}",
        "StudyDescription: 'ct, mr'",
        "calling_ae: ct",
    ],
)
def test_a_code_that_there_can_be(when: str) -> None:
    assert _warned(f"{{to: a, when: {{{when}}}}}") == []


@pytest.mark.parametrize("name", ["StudyDescription", "PatientName", "Modality"])
def test_curly_quotes_around_a_text(name: str) -> None:
    (told,) = _warned(f"{{to: a, when: {{{name}: [“Head*”]}}}}")
    assert "is compared with '“Head*”'" in told
    assert told.endswith(CURLY)


def test_one_warning_for_what_is_written_twice() -> None:
    (told,) = _warned("{to: a, when: {any: [{Modality: ct}, {Modality: ct, calling_ae: A}]}}")
    assert "'ct'" in told


def test_a_rule_in_another_file_is_named_with_it() -> None:
    files = {"a.yaml": b"- {name: all, to: a, final: true}\n"}
    rules = load(
        "- include: a.yaml\n- {name: late, to: b}\n",
        file="r.yaml",
        read=lambda name: [(name, files[name])],
    )
    assert [str(problem) for problem in warnings(rules, "r.yaml")] == [
        "r.yaml:2:3: rule 'late' is never reached; rule 'all' ends every decision in a.yaml:1"
    ]


def test_notes() -> None:
    rules = load(
        "- {to: a, disabled: no VPN}\n"
        "- {to: b, valid: {from: 2026-12-01}}\n"
        "- {to: c, valid: {from: 2026-11-01}}\n",
        file="r.yaml",
    )
    assert [str(note) for note in notes(rules, "r.yaml", NOW)] == [
        "r.yaml:1:3: rule 'rule 1' is disabled: no VPN",
        "r.yaml:2:3: rule 'rule 2' is not valid before 2026-12-01",
    ]


def test_thousands_of_final_rules_are_reviewed_in_bounded_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is looked at beside those alone that ask for no more than it does."""
    from rules import review

    asked = 0
    implies = review.implies

    def counted(*given: object) -> bool:
        nonlocal asked
        asked += 1
        return implies(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(review, "implies", counted)
    tags = [f"(0019,10{n:02x})" for n in range(200)]
    assert _warned(*(f"{{to: a, final: true, when: {{'{tag}': x}}}}" for tag in tags)) == []
    assert asked == 0
