"""What was committed beside a data set, read back from its record.

Owns the check that it is that: the index repeats most of it without a check sum.  Must not know
what the words mean.
"""

from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.record import InstanceMeta, Ref
from router.spool.recovery import read_header_and_meta
from router.spool.spool import Spool


def description(spool: Spool, ref: Ref) -> InstanceMeta:
    """That of one instance.  Blocking.

    Raises SpoolDamaged when it is not what was written, SpoolError when its segment cannot be read.
    """
    segments = spool.segments
    segment = segments.pin(ref.generation)
    if segment is None and (moved := spool.moves.latest(ref.id)) is not None:
        ref, segment = moved, segments.pin(moved.generation)
    if segment is None:
        raise SpoolError(f"instance {ref.id}: segment generation {ref.generation} is not there")
    try:
        _, raw = read_header_and_meta(segments.open(segment), ref)
        return InstanceMeta.from_bytes(raw)
    except ValueError as error:
        raise SpoolDamaged(f"instance {ref.id}: {error}") from None
    finally:
        segments.unpin(segment)
