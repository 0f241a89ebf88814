"""The spool's own fixtures."""

from tests.spool.conftest import loop, open_rig, rig

__all__ = ["loop", "open_rig", "rig"]
