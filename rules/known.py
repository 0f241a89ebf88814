"""What the rest of the configuration defines, as far as rules may name it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rules.source import Node
from rules.window import Windows


@dataclass(frozen=True, slots=True)
class Known:
    """Names that rules may use, and what stands behind them.

    ``destinations`` are the remotes with a host.  ``conditions`` are the mappings of
    ``conditions:`` as they were written.  ``lists`` has the entries of each list as its file has
    them; ``folded`` names those lists in which letter case does not count.
    ``titles`` has remotes by their AE titles, for messages to those who mistake one for the other.
    """

    remotes: Collection[str]
    destinations: Collection[str]
    conditions: Mapping[str, Node] = field(default_factory=dict)
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)
    schedules: Mapping[str, Windows] = field(default_factory=dict)
    folded: Collection[str] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
