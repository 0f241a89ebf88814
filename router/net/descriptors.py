"""File descriptors, of which the process has only so many.

Owns the look at how many are left, and how many of them peers may not take: the spool needs some
to take and to read instances, and accept(2) itself, without one, could only be tried over and
over.  Must not know connections.
"""

import errno
import os
import resource

_MOST_KEPT = 256
_LEAST_KEPT = 16


def descriptors_left() -> tuple[int, int]:
    """How many may be taken, at the least, and how many are to be kept for ourselves.

    The operating system is asked each time, since the limit may be changed meanwhile.  It gives
    out the lowest free number, so that all below it are in use.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST_KEPT, _MOST_KEPT
    kept = min(_MOST_KEPT, max(_LEAST_KEPT, limit // 4))
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        # Without a /dev/null, say, it is not known how many are left.
        return (0 if error.errno in (errno.EMFILE, errno.ENFILE) else kept), kept
    os.close(lowest)
    return limit - lowest, kept
