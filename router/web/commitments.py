"""Requests for storage commitment as JSON.

Owns their shape on the control socket, which docs/reference/http.md describes.
"""

from router.spool.index_promises import Promise


def promise(one: Promise) -> dict[str, object]:
    """One request of a remote, as the control API tells it."""
    return {
        "id": one.id,
        "transaction_uid": one.transaction_uid,
        "remote": one.remote,
        "calling_ae": one.peer_ae,
        "called_ae": one.own_ae,
        "association": one.association,
        "asked_at": one.asked_at,
        "state": one.state.name.lower().replace("_", " "),
        "due_at": one.due_at,
        "attempts": one.attempts,
        "reason": one.reason,
        "instances": one.items,
        "committed": one.committed,
        "failed": one.failed,
        "settled_at": one.settled_at,
    }
