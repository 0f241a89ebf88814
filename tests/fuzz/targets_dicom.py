"""Targets of data sets: the scanner in every transfer syntax, heads of files, text, rules on it.

Owns the promises of `router.dicom` for every input.  Must not know how inputs are made.
"""

import io
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from random import Random

from router.dicom.charset import character_set
from router.dicom.errors import DicomError
from router.dicom.part10 import read_file_meta, write_file_meta
from router.dicom.scan import Scanner
from router.dicom.values import text_values
from router.dicom.wanted import Key
from rules.attributes import Private
from rules.decision import Facts
from rules.load import load
from rules.ruleset import RuleSet
from tests.dicom.build import deflate
from tests.fuzz import seeds_dicom
from tests.fuzz.core import Cost, Outcome, Target, Violation, held, pieces
from tests.fuzz.targets_ul import same
from tests.fuzz.tree import Node, flatten

_SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50",
    "1.2.3.4",
    "1.2.840.113619.5.2",
    "1.2.840.10008.1.2.1.99",  # the input is the data set, and is deflated here
)
_TO_DEFLATE = 7
_WANTED = (
    (0x00080005, 0x00080016, 0x00080060, 0x00100010, 0x00181310, 0x0020000E, 0x00280106),
    (0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E),
    (0x00080018, 0x00091001, 0x00204000, 0x0040A124, 0x7FE00010),
    (0x00081032, 0x00280106),
)
_PRIVATE = Private(0x0009, "PRIVATE", 0x01)
_DEEP: tuple[Key, ...] = (
    _PRIVATE,
    Private(0x0029, "SIEMENS CSA HEADER", 0x10),
    (0x00081140, 0x00081150),
    (0x00081032, 0x00080100),
    (0x00081032, 0x0008103F, 0x00080104),
    (0x00081032, 0x0008103F),
    (0x00081032, 0x00080005),
    (_PRIVATE, 0x00080016),
    (0x00091001, 0x00100020),
    (0x0040A730, 0x0040A168, 0x00080104),
    (0x0040A730, 0x0040A730, 0x0040A730, 0x0040A160),
    (0x00280106, 0x00280106),
    (0x7FE00010, 0x00100010),
    (0x00081140, _PRIVATE, _PRIVATE),
)
_MIXTURES = 32
"""Wanted besides: none of these, or one of so many mixtures, as the first byte says."""
_VALUE_LIMIT = 100
_HEADERS = 132 + 12
"""Bytes of a header in part that a scanner may keep, its beginning with room for a preamble."""
_DAMAGED = "deflated data set is damaged"


# -- the scanner -------------------------------------------------------------------------------


def check_scan(data: bytes) -> Outcome:
    """Bytes 0 to 2 are the transfer syntax with what is wanted in sequences and of private
    elements, the cuts, and what else is wanted within what limits."""
    if len(data) < 3:
        return Outcome(True)
    choice, options = data[0] % len(_SYNTAXES), data[2]
    body = deflate(data[3:]) if choice == _TO_DEFLATE else data[3:]
    wanted = (*_WANTED[options & 3], *_mixture(data[0] // len(_SYNTAXES)))
    limit = 300 if options & 4 else 20_000
    whole, _ = _scan(_SYNTAXES[choice], wanted, limit, (memoryview(body),))
    cut, most = _scan(_SYNTAXES[choice], wanted, limit, pieces(body, data[1]))
    # zlib keeps back what it inflated just before the damage: there the cuts may tell.
    if _DAMAGED not in whole.error and _DAMAGED not in cut.error:
        same((whole.error, whole.found), (cut.error, cut.found), "what a scan finds")
        same(whole.too_large, cut.too_large, "what is too large")
    attributes = whole.attributes()
    if _DAMAGED not in whole.error and _DAMAGED not in cut.error:
        same(attributes, cut.attributes(), "the texts of what a scan finds")
    if attributes.keys() != whole.found.keys() | whole.gathered.keys() | whole.too_large:
        raise Violation("attributes are not those that were found")
    for values in attributes.values():
        check_texts(values)
    if options & 0xF0 == 0:
        decision = _rules().decide(
            Facts("CT1", "ROUTER", "10.0.0.5", "", "1.2", _SYNTAXES[choice], attributes)
        )
        if (decision.disposition == "route") != bool(decision.routes):
            raise Violation(f"a decision that contradicts itself: {decision!r}")
    return Outcome(bool(whole.error), most)


@cache
def _mixture(number: int) -> tuple[Key, ...]:
    chance = Random(number)
    return tuple(chance.sample(_DEEP, chance.randint(1, len(_DEEP)))) if number else ()


def _scan(
    syntax: str, wanted: tuple[Key, ...], limit: int, parts: Iterable[memoryview]
) -> tuple[Scanner, int]:
    scanner = Scanner(syntax, wanted, value_limit=_VALUE_LIMIT, byte_limit=limit)
    most = 0
    for number, part in enumerate(parts):
        if scanner.feed(part):
            break
        if not number & 15:
            most = max(most, held(scanner))
    scanner.finish()
    if not scanner.done:
        raise Violation("a scan that was finished is not done")
    if any(len(value) > _VALUE_LIMIT for _, value in scanner.found.values()):
        raise Violation(f"a value of more than {_VALUE_LIMIT} bytes was kept")
    if any(values.size > _VALUE_LIMIT for values in scanner.gathered.values()):
        raise Violation(f"values of more than {_VALUE_LIMIT} bytes were kept")
    if most > _VALUE_LIMIT * (len(wanted) + 3) + _HEADERS:
        raise Violation(f"{most} bytes are kept")
    return scanner, most


def check_texts(values: tuple[str, ...]) -> None:
    """Values go into the index, the log and JSON: they must have an encoding."""
    if not isinstance(values, tuple):
        raise Violation(f"not a tuple: {values!r}")
    for value in values:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Violation(f"text that has no encoding: {value!r}") from None


@cache
def _rules() -> RuleSet:
    return load(
        """
        - name: globs
          when: {PatientName: ["M*^*", "*=*"], Modality: [CT, "M?"]}
          to: a
        - name: nothing of it
          when: {not: {StudyInstanceUID: "1.2.*", any: [{Modality: "*"}, {source: 10.0.0.0/8}]}}
          discard: nobody wants it
        - name: the rest
          when: {any: [{calling_ae: "CT*"}, {ImageComments: "*t*e*x*t*"}]}
          to: [b, c]
          final: true
        """
    )


# -- heads of files ----------------------------------------------------------------------------


def check_meta(data: bytes) -> Outcome:
    """`read_file_meta` of bytes and of a file."""
    try:
        meta = read_file_meta(data)
    except DicomError as error:
        message = str(error)
        try:
            read_file_meta(io.BytesIO(data))
        except DicomError as other:
            same(message, str(other), "the error of a file")
            return Outcome(True)
        raise Violation("refused as bytes, read as a file") from None
    same(meta, read_file_meta(io.BytesIO(data)), "the head of a file")
    check_texts((meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid))
    if not 0 <= meta.data_set_offset <= len(data):
        raise Violation(f"a data set at byte {meta.data_set_offset} of {len(data)}")
    write_file_meta(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid)
    return Outcome(False)


# -- text --------------------------------------------------------------------------------------


def check_text(data: bytes) -> Outcome:
    """Bytes 0 to 2 are the VR, the character set, and tag, byte order and sign."""
    if len(data) < 3:
        return Outcome(True)
    vr = seeds_dicom.VRS[data[0] % len(seeds_dicom.VRS)]
    sets = seeds_dicom.CHARACTER_SETS
    value = data[3:]
    characters = character_set(sets[data[1]] if data[1] < len(sets) else value[:40])
    tag = (0x00100010, 0x00280106, 0x00091001, 0x00080005, 0x00290010, 0x00020000, 0xFFFEE000, 0)[
        data[2] & 7
    ]
    values = text_values(
        tag, vr, value, characters, big_endian=bool(data[2] & 8), signed=bool(data[2] & 16)
    )
    check_texts(values)
    if sum(map(len, values)) > 16 * len(value) or len(values) > len(value) + 1:
        raise Violation(f"{len(values)} values of {len(value)} bytes")
    return Outcome(not values)


# -- seeds -------------------------------------------------------------------------------------


def _scan_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    writers = {
        0: seeds_dicom.IMPLICIT,
        1: seeds_dicom.EXPLICIT,
        2: seeds_dicom.BIG,
        4: seeds_dicom.EXPLICIT,
        _TO_DEFLATE: seeds_dicom.EXPLICIT,
    }
    seeds = [(bytes((n, 0, 0)), writer.data_set()) for n, writer in writers.items()]
    squeezed = deflate(flatten(b"", seeds_dicom.EXPLICIT.data_set()).data)
    stored = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
    plain = stored.compress(bytes(range(256)) * 4) + stored.flush()
    for mixture in range(1, _MIXTURES, 3):
        for n, writer in writers.items():
            seeds.append((bytes((n + mixture * len(_SYNTAXES), 0, 0)), writer.data_set()))
    seeds += [(b"\3\0\0", [Node(value=value)]) for value in (squeezed, plain)]
    for syntax, _, sample in seeds_dicom.samples():
        choice = _SYNTAXES.index(syntax) if syntax in _SYNTAXES else 1
        mixture = len(seeds) % _MIXTURES
        seeds += [
            (bytes((choice + n * len(_SYNTAXES), 0, 0)), [Node(value=sample)]) for n in (0, mixture)
        ]
    return seeds


def _meta_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    w = seeds_dicom.EXPLICIT
    group = [
        w.element(0x00020000, "UL", b"\0\1\0\0"),
        w.element(0x00020001, "OB", b"\0\1"),
        w.element(0x00020002, "UI", seeds_dicom.CT),
        w.element(0x00020003, "UI", b"1.2.3\0"),
        w.element(0x00020010, "UI", b"1.2.840.10008.1.2.1\0"),
        w.element(0x00020016, "AE", b"CT1 "),
        w.element(0x00020102, "OB", bytes(9)),
    ]
    head, prefix = Node(value=bytes(128)), Node(value=b"DICM")
    seeds = [
        (b"", [head, prefix, *group, *w.data_set()]),
        (b"", [head, *group, *w.small()]),
        (b"", [*group, *w.data_set()]),
        (b"", w.data_set()),
        (b"", seeds_dicom.IMPLICIT.data_set()),
        (b"", seeds_dicom.BIG.data_set()),
        (b"", [head, prefix, *group[:2], *w.data_set()]),
    ]
    return seeds + [(b"", [Node(value=sample)]) for _, sample, _ in seeds_dicom.samples()]


def _text_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    values = [[Node(value=part) for part in text.split(b"^")] for text in seeds_dicom.TEXTS]
    return [
        (bytes((number, 0, 0)), nodes) for number in range(len(seeds_dicom.VRS)) for nodes in values
    ]


TARGETS = (
    Target("scan", check_scan, _scan_seeds, head=3, weight=70, cost=Cost(memory=512 * 1024)),
    Target("meta", check_meta, _meta_seeds, head=0, kept=0, weight=50),
    Target("text", check_text, _text_seeds, head=3, weight=120),
)
