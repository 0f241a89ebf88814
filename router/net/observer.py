"""Who counts the associations that we ask for.

Owns that narrow interface; must not know what is counted for whom.
"""

from typing import Protocol


class RequestorObserver(Protocol):
    """Counts associations; must neither wait nor raise."""

    def on_opened(self, direction: str, local_ae: str, peer: str) -> None:
        """An association was accepted by the peer."""
        ...

    def on_closed(self, direction: str, local_ae: str, peer: str) -> None:
        """It ended."""
        ...

    def on_aborted(self, direction: str, by: str) -> None:
        """It was aborted, by ``local`` or ``peer``."""
        ...
