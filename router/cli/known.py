"""Whether a destination that is named has any queue.

Owns the refusal of a name that nothing was ever routed to: a slip of the pen must not read as
"nothing waits there".
"""

from router.cli.desk import Desk
from router.cli.failures import Misuse
from rules.nearest import did_you_mean


def check_known(desk: Desk, destination: object) -> None:
    """Raises Misuse for a name that is neither configured nor in the index; None is any."""
    if not isinstance(destination, str):
        return
    known = {queue["destination"] for queue in desk.queues()}
    if destination in known:
        return
    if desk.running:
        known |= {state["name"] for state in desk.status()["destinations"]}
    if destination not in known:  # dear at rest, so last: it has those of which nothing waits
        known |= {line["destination"] for line in desk.account()["destinations"]}
    if destination not in known:
        names = sorted(known)
        fix = did_you_mean(destination, names) or f"there are: {', '.join(names) or 'none'}"
        raise Misuse(f"nothing was ever routed to a destination {destination}", fix)
