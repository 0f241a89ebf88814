"""Why an association that we asked for could not be had, or ended.

Each text is fit for an operator.  `temporary` says whether trying again may help without anybody
mending something; `kind` is a fixed word for counters.
"""

from router.ul import describe_abort, describe_rejection


class AssociationError(Exception):
    """The association cannot be used (any more)."""

    kind = "failed"

    @property
    def temporary(self) -> bool:
        """Trying again may help by itself."""
        return True


class ConnectFailed(AssociationError):
    """No transport connection: refused, unreachable, unknown host."""

    kind = "connect"


class AssociationRejected(AssociationError):
    """A-ASSOCIATE-RJ; `result`, `source` and `reason` are those of PS3.8 table 9-21."""

    kind = "rejected"

    def __init__(self, who: str, result: int, source: int, reason: int) -> None:
        super().__init__(
            f"{who} rejected the association: {describe_rejection(result, source, reason)}"
        )
        self.result = result
        self.source = source
        self.reason = reason

    @property
    def transient(self) -> bool:
        """Result 2, rejected-transient."""
        return self.result == 2

    @property
    def temporary(self) -> bool:
        """As `transient`: rejected-permanent needs somebody's hand."""
        return self.transient


class AssociationAborted(AssociationError):
    """A-ABORT by the peer, or by us; `source` and `reason` as in PS3.8 table 9-26."""

    kind = "aborted"

    def __init__(self, who: str, source: int, reason: int) -> None:
        super().__init__(f"{who} aborted the association: {describe_abort(source, reason)}")
        self.source = source
        self.reason = reason


class AssociationTimeout(AssociationError):
    """The peer was silent for longer than a timer allows."""

    kind = "timeout"


class AnotherUnanswered(AssociationTimeout):
    """We ended the association as the peer did not answer another message on it."""


class AssociationBroken(AssociationError):
    """The connection was lost, or the peer broke the protocol."""

    kind = "broken"


def in_seconds(seconds: float) -> str:
    """``61 s`` or ``0.25 s``."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
