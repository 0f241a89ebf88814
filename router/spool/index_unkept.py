"""What is purged though nobody has it is promised to nobody.

Owns which of the instances that go an operator or a rule had taken away from everybody, and that
peers who were not told yet that these are kept are not told so any more.  Owns too that those who
ask later are not told so by another object of the UID that came before, whoever has the one that
goes: they may not be those that count.  Must not know what makes an instance safe, nor reports.
PS3.4 §J.3, PS3.3 §C.14.1.1.
"""

import json

from router.spool.index_database import Database, id_list
from router.spool.index_types import DeliveryState, Disposition

NO_SUCH_INSTANCE = 0x0112
"""The Failure Reason: it is not here, as whoever asks from now on is told."""
_OUTDATED = "an object of its SOP Instance UID that came later was given up"
OUTDATED = f"*{_OUTDATED}"
"""As the reason of an instance: of two objects whoever asks has the other, which is nowhere."""
_SUPERSEDED = "an object of its SOP Instance UID that came later is purged"
SUPERSEDED = f"*{_SUPERSEDED}"
"""Likewise, where the other is not here any more, and somebody may have it."""


def forget_unkept(db: Database, ids: str) -> None:
    """Before the rows of the instances ``ids``, a JSON array, are deleted; in the open
    transaction.

    What a destination has stays promised when it goes.  Of several objects of one UID the content
    that came last is meant, as when it is judged; the same bytes elsewhere count.  What was not
    decided yet is: its verdict may be on its way here.
    """
    db.run(_OUTDATE, ids, _OUTDATED)
    db.run(_SUPERSEDE, ids, _SUPERSEDED)
    if not db.value(_ANY_ASKED):
        return
    unkept = db.json(_UNKEPT, ids)
    if not unkept:
        return
    named = json.dumps(unkept)
    promises = db.json(_PROMISED, named)
    if promises:
        which = id_list(promises)
        db.run(_FAIL, NO_SUCH_INSTANCE, which, named)
        db.run(_COUNT, which)


def _gone(i: str) -> str:
    """Whether nobody has the instance ``i``, nor will."""
    return f"""(
        {i}.disposition = {int(Disposition.DISCARDED)}
        OR EXISTS (SELECT 1 FROM delivery WHERE instance_id = {i}.id)
        AND NOT EXISTS (
            SELECT 1 FROM delivery
            WHERE instance_id = {i}.id AND state <> {int(DeliveryState.DROPPED)}
        )
    )"""


_ANY_ASKED = "SELECT EXISTS (SELECT 1 FROM promise INDEXED BY promise_due WHERE state <= 1)"
_UNKEPT = f"""
SELECT json_group_array(json_array(class, uid)) FROM (
    SELECT DISTINCT c.sop_class_uid AS class, i.sop_instance_uid AS uid
    FROM json_each(?) AS j
    CROSS JOIN instance AS i ON i.id = j.value
    CROSS JOIN context AS c ON c.id = i.context_id
    WHERE {_gone("i")} AND NOT EXISTS (
        SELECT 1 FROM instance AS o INDEXED BY instance_sop
        CROSS JOIN context AS k ON k.id = o.context_id
        WHERE o.study_order = i.study_order AND o.sop_key = i.sop_key AND o.id <> i.id
            AND o.sop_instance_uid = i.sop_instance_uid AND k.sop_class_uid = c.sop_class_uid
            AND (o.id > i.id OR (o.crc = i.crc AND o.length = i.length))
            AND NOT {_gone("o")}
    )
)
"""
_MARK = f"""
UPDATE instance SET reason = coalesce(
    nullif(coalesce(reason, (SELECT reason FROM context WHERE id = context_id)), '') || '; ', ''
) || ?2
WHERE {{unless}} AND id IN (
    SELECT b.id
    FROM json_each(?1) AS j
    CROSS JOIN instance AS i ON i.id = j.value
    CROSS JOIN context AS c ON c.id = i.context_id
    CROSS JOIN instance AS b INDEXED BY instance_sop
        ON b.study_order = i.study_order AND b.sop_key = i.sop_key
    CROSS JOIN context AS k ON k.id = b.context_id
    WHERE {{which}} b.id < i.id AND (b.crc, b.length) <> (i.crc, i.length)
        AND b.sop_instance_uid = i.sop_instance_uid AND k.sop_class_uid = c.sop_class_uid
        AND NOT EXISTS (
            SELECT 1 FROM instance AS o INDEXED BY instance_sop
            CROSS JOIN context AS m ON m.id = o.context_id
            WHERE o.study_order = i.study_order AND o.sop_key = i.sop_key AND o.id > i.id
                AND o.sop_instance_uid = i.sop_instance_uid
                AND m.sop_class_uid = c.sop_class_uid AND NOT {_gone("o")}
        )
)
"""
_OUTDATE = _MARK.format(unless="coalesce(reason, '') NOT GLOB '*' || ?2", which=f"{_gone('i')} AND")
_SUPERSEDE = _MARK.format(
    unless="coalesce(reason, '') NOT GLOB '*' || ?2"
    f" AND coalesce(reason, '') NOT GLOB '{OUTDATED}'",
    which="",
)
_NAMED = """
coalesce(verdict, 0) = 0 AND (sop_class_uid, sop_instance_uid) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)
)
"""
_PROMISED = f"""
SELECT json_group_array(promise_id) FROM (
    SELECT DISTINCT promise_id FROM promise_item WHERE {_NAMED}
)
"""
_FAIL = f"""
UPDATE promise_item SET verdict = ?
WHERE promise_id IN (SELECT value FROM json_each(?)) AND {_NAMED}
"""
_COUNT = """
UPDATE promise SET (committed, failed) = (
    SELECT count(*) FILTER (WHERE verdict = 0), count(*) FILTER (WHERE verdict > 0)
    FROM promise_item WHERE promise_id = promise.id
)
WHERE id IN (SELECT value FROM json_each(?))
"""
