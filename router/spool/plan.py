"""When a delivery may go, and who may have it instead, as it lies in a record and in the index.

Owns the form of that text.  Must not know rules, clocks or destinations: names are kept and
compared.
"""

import json
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

Mode = Literal["one", "failover", "balance", "first_available"]
Keep = Literal["", "study"]
OnRefusal = Literal["dead", "next"]
After = Literal["at-once", "study-complete", "series-complete"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of one delivery; seconds.

    ``members`` are those that may have it, best first; () when only its destination may.  The
    ``mode`` says whether it goes back to a better one that is up again; ``first_available``
    does not.  With ``keep`` a study is finished where it was begun.  ``on_refusal`` ``next``: what
    a member refuses for good goes to another one.  ``after``: a study or series is
    complete ``quiet`` seconds after the last of it came and, with ``expect``, when the archive of
    that name knows of no more, for which it waits ``wait`` seconds at most.
    ``schedule`` names the windows in which it is sent, "" for any time.
    """

    mode: Mode = "one"
    members: tuple[str, ...] = ()
    after: After = "at-once"
    quiet: float = 60.0
    expect: str = ""
    wait: float = 1800.0
    schedule: str = ""
    keep: Keep = ""
    on_refusal: OnRefusal = "dead"

    @property
    def gated(self) -> bool:
        """Whether it has to wait for more than its turn."""
        return self.after != "at-once" or bool(self.schedule)

    def hastened(self) -> "Plan":
        """The same without anything to wait for."""
        return replace(
            _AT_ONCE,
            mode=self.mode,
            members=self.members,
            keep=self.keep,
            on_refusal=self.on_refusal,
        )

    def to_text(self) -> str:
        """Compact JSON of what is not the default, always the same for the same plan; "" when
        all is."""
        given = {name: value for name, value in self._values() if value != getattr(_AT_ONCE, name)}
        return _encode(given) if given else ""

    def _values(self) -> list[tuple[str, object]]:
        """Whole numbers of seconds as such: 90 and 90.0 are one plan."""
        found: list[tuple[str, object]] = []
        for name in _NAMES:
            value = getattr(self, name)
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            found.append((name, value))
        return found

    @classmethod
    def from_text(cls, text: str) -> "Plan":
        """The reverse of `to_text`; keys that a later version added are left out.

        Raises ValueError for what is not a plan.
        """
        if not text:
            return _AT_ONCE
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not a plan: {error}") from error
        if not isinstance(given, dict):
            raise ValueError("not a plan: a mapping was expected")
        values: dict[str, Any] = {n: _read(n, given[n]) for n in _NAMES if n in given}
        return cls(**values)


_AT_ONCE = Plan()
_NAMES = tuple(f.name for f in fields(Plan))
_WORDS: dict[str, tuple[str, ...]] = {
    "mode": get_args(Mode),
    "after": get_args(After),
    "keep": get_args(Keep),
    "on_refusal": get_args(OnRefusal),
}


def _read(name: str, value: object) -> str | float | tuple[str, ...]:
    if name == "members":
        if isinstance(value, list) and all(isinstance(member, str) for member in value):
            return tuple(value)
    elif name in ("quiet", "wait"):
        # A bool is an int, and JSON here may hold Infinity.
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return float(value)
    elif isinstance(value, str) and value in _WORDS.get(name, (value,)):
        return value
    raise ValueError(f"not a plan: {name} is {value!r:.60}")
