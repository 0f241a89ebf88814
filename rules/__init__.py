"""The rule language: what is written under ``rules:``, compiled, and the answer that it gives.

Pure: no clock, log, socket or asyncio, and nothing from `router`.
"""

from rules.decision import Decision, Disposition, Facts, Route
from rules.known import Known
from rules.load import load, warnings
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.source import Problem, Problems

__all__ = [
    "Decision",
    "Disposition",
    "Facts",
    "Known",
    "Problem",
    "Problems",
    "Route",
    "Rule",
    "RuleSet",
    "load",
    "warnings",
]
