"""One value of a condition as it is written: the short forms, and what they are for a subject.

Owns what plain text, ``*``, ``/regex/``, ``<``, ``..`` and ``=`` mean for attributes of each VR and
for facts.  Knows texts and no nodes; raises Refusal for what could never hold.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from typing import Literal, cast

from rules.attributes import SINGLE_TEXT, Attribute, label_of
from rules.facts import TEXT_FACTS, read_fact
from rules.known import Known
from rules.literals import NOUNS, Comparison, between, compared, equal_to
from rules.pattern import Affix, Exact, Folded, Glob, Interval, Name, Pattern, Regex, is_glob
from rules.refusal import Refusal
from rules.regex import complaint
from rules.rule import Subject
from rules.subjects import vr_of_attribute
from rules.uids import is_uid_glob
from rules.values import KINDS, Kind, Lens

_FACT_OPERATORS = frozenset({"equals", "not"})
_TEXT_FACT_OPERATORS = _FACT_OPERATORS | {
    *("glob", "regex", "starts", "ends", "contains", "in", "ignore_case")
}
_UNORDERED = ("UI", "PN", "AT")
_AS_TEXT = "compare it with plain text, a glob such as 'A*' or a regex"
_SLIPS = {
    "=<": "<=",
    "=>": ">=",
    "<>": "!=",
    "==": "=",
    "!": "!=",
}
SLASHED = re.compile(r"/(.*)/([A-Za-z]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Values:
    """How values of one subject are written.  ``shown`` is a text as messages show it."""

    subject: Subject
    known: Known | None
    zone: tzinfo

    @property
    def where(self) -> str:
        return self.subject if isinstance(self.subject, str) else label_of(self.subject)

    @property
    def vr(self) -> str:
        return vr_of_attribute(self.subject) if isinstance(self.subject, Attribute) else ""

    @property
    def kind(self) -> Kind | None:
        return KINDS.get(self.vr)

    def takes(self, operator: str) -> bool:
        """Whether an operator of `rules.operators.OPERATORS` has a meaning for the subject."""
        if not isinstance(self.subject, str):
            return True
        known = _TEXT_FACT_OPERATORS if self.subject in TEXT_FACTS else _FACT_OPERATORS
        return operator in known

    def read_short(self, text: str, shown: str, after: str) -> tuple[Pattern, ...]:
        """Any short form but a negation; ``after`` is the ``!=`` before it, or "".

        Raises Refusal, as all of these do.
        """
        if text == "=" or text.startswith("= "):
            return (self.literal(text[1:].strip(), shown, fold=False),)
        for slip, meant in _SLIPS.items():
            # An equals sign begins a name that has only ideographic characters.
            if text.startswith(slip) and not (slip == "==" and self.vr == "PN"):
                if slip == "!" and text.startswith("!="):
                    raise Refusal(f"{shown} is a negation twice", "write != once")
                raise Refusal(f"{shown} has no known operator", f"did you mean {meant}?")
        for sign in ("<=", ">=", "<", ">"):
            if text.startswith(sign):
                if after:
                    raise Refusal(
                        f"{shown} cannot be read", "turn the comparison round: >= for < and so on"
                    )
                return (self.compare(sign, text[len(sign) :], shown),)
        if text.startswith("/") and self.takes("regex"):
            return (self._slashed(text, shown),)
        if self.kind is not None and ".." in text:
            return (self._range(text, shown),)
        if isinstance(self.subject, str):
            return read_fact(self.subject, text, shown, self.known)
        if is_glob(text):
            return (self.glob(text, shown, fold=False),)
        return (self.literal(text, shown, fold=False),)

    def _slashed(self, text: str, shown: str) -> Pattern:
        match = SLASHED.fullmatch(text)
        if match is None or not match[1]:
            raise Refusal(
                f"{shown} begins a regex that does not end",
                "end it with / or /i; for the text itself write '= /...'",
            )
        if match[2] not in ("", "i"):
            raise Refusal(f"{shown} has the unknown flag {match[2]!r}", "only /i is known")
        return self.regex(match[1], shown, fold=match[2] == "i")

    def _range(self, text: str, shown: str) -> Pattern:
        low, _, high = text.partition("..")
        if not low.strip() or not high.strip() or ".." in high:
            raise Refusal(f"{shown} is no range", "write 1..5, or >= 1, or <= 5")
        return self.between(low, high)

    def literal(self, text: str, shown: str, fold: bool) -> Pattern:
        """``text`` without any special meaning."""
        if not text:
            raise Refusal(f"{shown} has no text to compare with", "write it behind the '= '")
        if isinstance(self.subject, str):
            if self.subject not in TEXT_FACTS:
                raise Refusal(f"{self.where} {shown} takes no '='", "write the value alone")
            return Folded(Exact(text)) if fold else Exact(text)
        if self.kind is not None:
            if fold:
                raise Refusal(f"{self.where} has no letter case", "leave 'ignore_case' out")
            return self.placed(lambda kind: equal_to(kind, text, self.zone))
        self._check_text(text, shown)
        if self.vr == "PN":
            return Name(Exact(text))
        return Folded(Exact(text)) if fold else Exact(text)

    def glob(self, text: str, shown: str, fold: bool) -> Pattern:
        """``text`` as a glob, whether or not it holds a star."""
        if isinstance(self.subject, str):
            read_fact(self.subject, text, shown, None if fold else self.known)
        else:
            self._check_text(text, shown)
        if self.vr == "PN":
            return Name(Glob(text))
        return Folded(Glob(text)) if fold else Glob(text)

    def regex(self, text: str, shown: str, fold: bool) -> Pattern:
        """``text`` as an expression without slashes."""
        what, fix = complaint(text)
        if what:
            raise Refusal(f"{shown} {what}", fix)
        return Name(Regex(text)) if self.vr == "PN" else Regex(text, fold)

    def affix(self, where: str, text: str, shown: str, fold: bool) -> Pattern:
        """What starts, ends or contains."""
        if not isinstance(self.subject, str):
            self._check_text(text, shown)
        affix = Affix(cast(Literal["starts", "ends", "contains"], where), text)
        if self.vr == "PN":
            return Name(affix)
        return Folded(affix) if fold else affix

    def _check_text(self, text: str, shown: str) -> None:
        if "\\" in text and self.vr not in SINGLE_TEXT:
            raise Refusal(
                f"{self.where} cannot match {shown}: its values are compared one by one",
                "name the one that matters, or use 'all' for several",
            )
        if self.vr == "UI" and not is_uid_glob(text):
            attribute = cast(Attribute, self.subject)
            fix = "a UID has digits with dots between them"
            if attribute.path == (0x00080016,):
                fix = "use sop_class, which takes names"
            raise Refusal(f"{self.where} is a UID and cannot match {shown}", fix)

    def compare(self, sign: Comparison, text: str, shown: str) -> Pattern:
        """What is less or more than a literal."""
        self._check_order(shown)
        if not text.strip():
            raise Refusal(f"{shown} has nothing behind the {sign}", f"write {sign} VALUE")
        if text.strip()[0] in "<>=":
            raise Refusal(f"{shown} has no known operator", "known are <, <=, >, >= and !=")
        return self.placed(lambda kind: compared(kind, sign, text, self.zone))

    def between(self, low: str, high: str) -> Pattern:
        """From one literal to another, both of them in."""
        self._check_order("a range")
        return self.placed(lambda kind: between(kind, low, high, self.zone))

    def _check_order(self, shown: str) -> None:
        if isinstance(self.subject, str):
            raise Refusal(f"{self.where} has no order, so {shown} means nothing", _AS_TEXT)
        if self.vr in _UNORDERED:
            what = f"{self.where} has no order, so {shown} means nothing"
            raise Refusal(f"{what}: its VR is {self.vr}", _AS_TEXT)

    def placed(self, make: Callable[[Kind], Interval]) -> Pattern:
        """An interval, with the subject's name in what is said of a literal that is none."""
        # Text is compared as the number that it may hold.
        kind = self.kind or "number"
        try:
            return make(kind)
        except Refusal as refusal:
            holds = f"{self.where} is compared as {NOUNS[kind]}"
            raise Refusal(f"{holds}: {refusal.message}", refusal.fix) from None

    def equals(self, text: str, shown: str, fold: bool) -> Pattern:
        """The operator of that name: no text has a special meaning for it."""
        if isinstance(self.subject, str) and not is_glob(text):
            read_fact(self.subject, text, shown, None if fold else self.known)
        return self.literal(text, shown, fold)

    def lens(self, fold: bool) -> Lens:
        """How values and the entries of a list are looked at when they are compared."""
        if self.vr == "PN":
            return "name"
        return self.kind or ("fold" if fold else "text")
