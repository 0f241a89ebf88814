"""Targets of what a person writes: the rules, and the configuration around them.

Owns the promise that a text is taken, or answered with a list of what is wrong with it.  Must
not know how inputs are made.
"""

from collections.abc import Sequence
from pathlib import Path

from router.config.load import loads
from rules.attributes import Private
from rules.decision import Facts
from rules.interpret import explain
from rules.load import load, warnings
from rules.source import Problems
from tests.fuzz.core import Cost, Outcome, Target, Violation
from tests.fuzz.tree import Node

_FACTS = Facts(
    "CT1",
    "ROUTER",
    "10.0.0.5",
    "",
    "1.2",
    "1.2.840.10008.1.2",
    {
        0x00080060: ("CT",),
        0x00080008: ("ORIGINAL", "PRIMARY", "LOCALIZER"),
        0x00080020: ("20261121",),
        0x00080030: ("180000.5",),
        0x00100010: ("DOE^JOHN=x",),
        0x00101010: ("018Y",),
        0x00180050: ("1.50", "x"),
        (0x00400275, 0x00400009): ("S1", ""),
        Private(0x0019, "GEMS_ACQU_01", 0x10): (),
    },
    1_795_286_000.0,
)
_EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
MAGIC = (
    b"- name: x\n  to: y\n",
    b"when: {any: [{Modality: CT}]}",
    b"&a ",
    b"*a",
    b"<<: *a\n",
    b"!!python/object:os.system ",
    b"!!binary ",
    b'"\\U00110000"',
    b'"\\ud800"',
    b'"\\xff\\0"',
    b"? ",
    b"--- ",
    b"...\n",
    b"%YAML 9.9\n",
    b"%TAG ! !\n",
    b"\t",
    b"\xef\xbb\xbf",
    b"\xff",
    b"[[[[[[[[[[[[[[[[",
    b"{{{{{{{{",
    b"- - - - - - - -",
    b"|2-\n  text\n",
    b">\n",
    b"\xe2\x80\xa8",
    b"2026-01-01",
    b"10.0.0.0/99",
    b"(0010,0010)",
    b"PatientName",
    b"not: ",
    b"final: true\n",
    b"discard: because\n",
    b"!= ",
    b">= today-7d",
    b"1..5",
    b"/(a+)+$/i",
    b'(0019,"GEMS_ACQU_01",10)',
    b"RequestAttributesSequence.ScheduledProcedureStepID",
    b"ImageType[3]",
    b"{count: '> 3'}",
    b"{same_as: PatientID}",
    b"{in: trial}",
    b"{present: false}",
    b"ignore_case: true",
    b"{balance: [p, q], by: patient, weights: [2, 1]}",
    b"received: 18:00-07:00",
)


_NESTED = b"""
- name: a
  when:
    calling_ae: ["CT*", MR1]
    not: {Modality: [SR, KO]}
    any:
      - {source: 10.0.0.0/8}
      - {"(0008,0060)": "?T"}
  to: [p, q]
  final: true
- {name: b, discard: unwanted}
"""
_OPERATORS = b"""
- name: c
  when:
    ImageType[3]: "!= LOCALIZER"
    SliceThickness: [1..5, "< 0.5", 7]
    StudyDate: ">= today-7d"
    StudyTime: {at_least: 18:00, less: 23:00}
    PatientName: "Doe^*"
    PatientAge: "> 18Y"
    SeriesDescription: /axial|head/i
    (0019,"GEMS_ACQU_01",10): {present: true, count: "0..2"}
    RequestAttributesSequence.ScheduledProcedureStepID: {starts: S, ignore_case: true}
    PatientID: {same_as: OtherPatientIDs}
    received: ["mon-fri 18:00-07:00", "sat-sun 00:00-24:00"]
  to: {balance: [p, q], by: study, weights: [2, 1]}
  tag: night
- {name: d, when: {tag: "n*", PatientID: {in: trial}}, hold: ask}
"""


def check_rules(data: bytes) -> Outcome:
    """`load`, and on success a decision, its explanation and the warnings."""
    try:
        rules = load(data)
    except Problems as problems:
        if not problems.problems:
            raise Violation("refused without a reason") from None
        str(problems).encode("utf-8")
        return Outcome(True)
    for problem in warnings(rules, "file"):
        str(problem).encode("utf-8")
    for rule in rules.rules:  # names go into records, metrics and the log
        " ".join(
            (rule.name, *rule.destinations, *rule.tags, rule.discard or rule.hold or "")
        ).encode("utf-8")
    explained = explain(rules, _FACTS)
    if explained.decision != rules.decide(_FACTS):
        raise Violation("the explanation is of another decision")
    for trace in explained.rules:
        for clause in trace.clauses:
            f"{clause.text}: {clause.why}; {trace.effect}".encode()
    return Outcome(False)


def check_config(data: bytes) -> Outcome:
    """A whole configuration, without an environment."""
    try:
        loaded = loads(data, "file", {})
    except Problems as problems:
        if not problems.problems:
            raise Violation("refused without a reason") from None
        str(problems).encode("utf-8")
        return Outcome(True)
    for problem in loaded.warnings:
        str(problem).encode("utf-8")
    return Outcome(False)


def _whole() -> Sequence[tuple[bytes, list[Node]]]:
    return [(b"", [Node(value=part) for part in _tokens(_EXAMPLE.read_bytes())])]


def _seeds() -> Sequence[tuple[bytes, list[Node]]]:
    example = _EXAMPLE.read_bytes()
    texts = (
        example[example.index(b"rules:") + 6 :],
        _NESTED,
        _OPERATORS,
        b"[{name: &n x, to: *n}, {name: 'y', when: {BodyPartExamined: [HEAD]}, to: z}]",
        b"- &r {name: one, to: p}\n- <<: *r\n  name: two\n- name: >-\n    folded\n  to: q\n",
    )
    return [(b"", [Node(value=part) for part in _tokens(text)]) for text in texts]


def _tokens(text: bytes) -> list[bytes]:
    parts, word = [], b""
    for at in range(len(text)):
        char = text[at : at + 1]
        if char in b" \n:,[]{}'\"":
            parts += [word, char]
            word = b""
        else:
            word += char
    return [part for part in (*parts, word) if part]


# A YAML parser in Python takes some hundred lines for a byte; a long word that is looked for among
# all keywords takes half a million, and at most a hundred are, see `rules.nearest.rationed`.
_COST = Cost(1_000_000, 1_000, 2**20, 1_000)

TARGETS = (
    Target("rules", check_rules, _seeds, head=0, kept=0, weight=2, cost=_COST, magic=MAGIC),
    Target("config", check_config, _whole, head=0, kept=0, weight=1, cost=_COST, magic=MAGIC),
)
