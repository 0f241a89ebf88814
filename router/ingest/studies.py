"""Which studies and series somebody may still be sending.

Owns the open associations that have sent to a study or series, by their ids.  Must not know what
is done once nobody sends any more, nor time.

A peer may send what is no UID: it is known here by what the index makes of it, by which it is
asked for.
"""

from collections import Counter
from collections.abc import Callable

from router.spool.index_database import clean

LIMIT = 1024
"""Studies, and as many series, that are remembered of one association; of those that it left
longest ago nobody waits for its end, but for their quiet time only."""


class _Sent:
    """What one association has sent to, the latest last."""

    __slots__ = ("last", "uids")

    def __init__(self) -> None:
        self.last = ("", "")
        self.uids: tuple[dict[str, None], dict[str, None]] = {}, {}


class OpenStudies:
    """``on_free`` is called when an association that had sent something has ended."""

    def __init__(self, on_free: Callable[[], None] = lambda: None, *, limit: int = LIMIT) -> None:
        self.on_free = on_free
        self._limit = limit
        self._sent: dict[str, _Sent] = {}
        self._senders: tuple[Counter[str], Counter[str]] = Counter(), Counter()

    def sent(self, association: str, study: str, series: str) -> None:
        """An instance of these is arriving over the association, or has arrived; "" for none."""
        sent = self._sent.get(association)
        if sent is None:
            sent = self._sent[association] = _Sent()
        if sent.last == (study, series):
            return
        sent.last = (study, series)
        cleaned = clean(study), clean(series)
        for uids, senders, uid in zip(sent.uids, self._senders, cleaned, strict=True):
            if not uid:
                continue
            if uid in uids:
                del uids[uid]  # to the end of the order
            else:
                senders[uid] += 1
                if len(uids) >= self._limit:
                    _forget(senders, eldest := next(iter(uids)))
                    del uids[eldest]
            uids[uid] = None

    def ended(self, association: str) -> None:
        """Nothing more comes over it."""
        sent = self._sent.pop(association, None)
        if sent is None:
            return
        for uids, senders in zip(sent.uids, self._senders, strict=True):
            for uid in uids:
                _forget(senders, uid)
        self.on_free()

    def study_open(self, uid: str) -> bool:
        """Whether an association that has sent to this study is open."""
        return clean(uid) in self._senders[0]

    def series_open(self, uid: str) -> bool:
        """Whether an association that has sent to this series is open."""
        return clean(uid) in self._senders[1]


def _forget(senders: Counter[str], uid: str) -> None:
    senders[uid] -= 1
    if senders[uid] <= 0:
        del senders[uid]
