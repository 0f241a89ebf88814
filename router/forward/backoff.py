"""How long to wait after a failure.

Owns the arithmetic of capped exponential back-off with jitter, real-valued throughout: a wait
rounded to whole seconds makes the first steps of a gentle factor all alike.  Must not know
clocks or what failed; the random number is handed in.
"""

import math

from router.net.settings import Retry


def ceiling(retry: Retry, failures: int) -> float:
    """Longest wait in seconds after ``failures`` failures in a row (at least 1)."""
    exponent = max(0, failures - 1)
    # Compared as logarithms, since a big exponent overflows long before the cap is applied.
    if exponent * math.log(retry.factor) >= math.log(max(retry.cap / retry.first, 1.0)):
        return retry.cap
    return min(retry.cap, retry.first * retry.factor**exponent)


def delay(retry: Retry, failures: int, draw: float) -> float:
    """Seconds to wait after ``failures`` failures in a row; ``draw`` is random in [0, 1).

    The share ``retry.jitter`` of the wait is drawn, so the result lies between
    ``(1 - jitter) × ceiling`` and ``ceiling``: never above the cap, never zero unless all of
    the wait is jitter.
    """
    longest = ceiling(retry, failures)
    return longest * (1.0 - retry.jitter * draw)
