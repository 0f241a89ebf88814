"""Writers under way: a call that waits, and what is left in the end."""

import os
import threading
from pathlib import Path

import pytest

from tests.spool.spool_samples import PATIENCE, Rig, settle


def files(rig: Rig) -> list[Path]:
    return sorted(rig.spool.large_directory.iterdir())


def check_clean(rig: Rig) -> None:
    settle(rig)
    assert rig.spool.blocks.in_use == 0
    assert rig.spool._writers == 0


class Held:
    """A call that waits until it may go on, and then perhaps fails."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, place: object, name: str, *, error: int = 0
    ) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()
        real = getattr(place, name)

        def call(*arguments: object, **more: object) -> object:
            if threading.current_thread().name.startswith("spool-large"):
                self.reached.set()
                assert self.go.wait(PATIENCE)
                if error:
                    raise OSError(error, os.strerror(error))
            return real(*arguments, **more)

        monkeypatch.setattr(place, name, call)
