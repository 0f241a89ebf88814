"""The outcome table as a page: ``python -m tests.proxy.page > docs/reference/outcomes.md``.

Owns the words for what `table` expects, so that the page says what is tested and nothing else.
"""

import sys
from itertools import groupby

from router.net.settings import Remote, Retry
from router.spool.index_types import DeliveryState
from tests.proxy.table import TABLE, Case

_HEAD = """\
<!-- Generated: python -m tests.proxy.page > docs/reference/outcomes.md -->

# What becomes of an instance when a destination misbehaves

Each row is a test (`tests/proxy`): a destination does what the first column says, the gateway must
do what the second says, and all other destinations go on as if nothing had happened. Whatever the
row, the instance is *delivered*, *ready* (it waits, with the reason of the last attempt) or *dead*
(kept until an operator retries or drops it); none is lost.

- **Waits** are those of `retry` of the remote: {first:g} s after the first failure, {factor:g}
  times as long after each further one, at most {cap:g} s. An instance has {max_attempts} attempts.
- **Time-outs** are `connect_timeout` ({connect:g} s), `negotiation_timeout` ({negotiation:g} s) and
  `dimse_timeout` ({dimse:g} s); what they measure is silence, not how long a transfer takes.
  Of several messages on one association each has a `dimse_timeout` of its own, from when all of it
  was there and those ahead of it were answered; when that is over, it alone is charged.
- **Sent** is how often the whole instance went out. Where that is twice, the destination may have
  had it, and its answer was lost: it gets the same bytes again.
- **After a time-out or a wrong answer** an association is never used again. The instances behind
  the one in hand go on a new association and are charged nothing.
- **A destination that is down** is called with one association at a time. Where its refusal may be
  for the sake of one SOP class that is proposed, Verification is proposed instead now and then.

The last column is part of what `dcmrouter instances show` and `dcmrouter queue show` give for the
instance, or `dcmrouter status` for a destination that is down.
"""


def page() -> str:
    """The whole file."""
    remote, retry = Remote(ae_title="X"), Retry()
    parts = [
        _HEAD.format(
            first=retry.first,
            factor=retry.factor,
            cap=retry.cap,
            max_attempts=retry.max_attempts,
            connect=remote.connect_timeout,
            negotiation=remote.negotiation_timeout,
            dimse=remote.dimse_timeout,
        )
    ]
    for group, cases in groupby(TABLE, key=lambda case: case.group):
        parts.append(f"\n## {group}\n")
        parts.append("| the destination | the gateway | sent | the operator sees |")
        parts.append("|---|---|---|---|")
        parts += [_line(case) for case in cases]
    return "\n".join(parts) + "\n"


def _line(case: Case) -> str:
    fewest, most = case.copies
    copies = str(most) if fewest == most else f"{fewest} or {most}"
    cells = (case.fault, _does(case), copies, _sees(case))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _does(case: Case) -> str:
    if case.down:
        return "down; no instance is charged; called again after a wait"
    if case.state is DeliveryState.DEAD:
        if case.tries:
            return f"gives up after the last attempt (here {len(case.tries) + 1})"
        if case.charged == (1, 2, 3) or case.sop_classes[1] != case.sop_classes[0]:
            return "dead at once, all instances of that class and syntax; sends the others"
        return "dead at once; the association goes on"
    if case.tries:
        ending = "the association goes on" if case.goes_on else "the association is ended"
        return f"{ending}; an attempt is charged; sent again after a wait"
    if case.next_too:
        return (
            "delivered; the others go on a new association, the next may have been charged an "
            "attempt"
        )
    if case.sop_classes[1] != case.sop_classes[0]:
        return "proposes it alone, on an association of its own; delivered"
    if case.group.startswith("Between"):
        return (
            "delivered; the association is aborted"
            if case.calls == 1
            else "delivered; the others go on a new association, uncharged"
        )
    return "delivered; the association goes on"


def _sees(case: Case) -> str:
    if case.refused:
        return f"destination down: “{case.refused}”"
    if case.state is DeliveryState.DEAD:
        return f"dead: “{case.last}”"
    if case.tries:
        text = f"while it waits: “{case.tries[0]}”"
        return f"{text}; then delivered: “{case.last}”" if case.last else f"{text}; then delivered"
    return f"delivered, with a warning: “{case.last}”" if case.last else "delivered"


if __name__ == "__main__":
    sys.stdout.write(page())
