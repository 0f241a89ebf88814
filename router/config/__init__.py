"""The configuration: one YAML file, checked as a whole, and what changes at a reload."""

from router.config.changes import NEEDS_RESTART, Changes, diff, restart_problems
from router.config.load import Loaded, load, loads
from router.config.model import Config, HttpSettings, LogSettings
from rules import Problem, Problems

__all__ = [
    "NEEDS_RESTART",
    "Changes",
    "Config",
    "HttpSettings",
    "Loaded",
    "LogSettings",
    "Problem",
    "Problems",
    "diff",
    "load",
    "loads",
    "restart_problems",
]
