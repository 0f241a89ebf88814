"""Whether the index says of an instance what was written of it.

Owns which of its words are compared with a sum: those with which an instance is sent, archived or
exported.  No tree of the file repeats them.  Writes nothing.
"""

from router.spool.index_database import Database, sum_of
from router.spool.index_schema import sop_key


def check_words(
    db: Database, key: int, told: int | None, sop_instance_uid: str, *of_context: str
) -> None:
    """``key`` and ``told`` stand for the words that follow: the SOP Instance UID, and the calling
    AE title, SOP class, transfer syntax and study of its context.  Raises IndexDamaged.

    Of a version that noted no sum ``told`` is None.
    """
    if told is not None and (told != sum_of(*of_context) or key != sop_key(sop_instance_uid)):
        raise db.met_damaged("an instance is described by other words than were written")
