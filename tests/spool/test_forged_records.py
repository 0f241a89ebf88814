"""What only looks like a record, and descriptions that are too long."""

import pytest

from router.spool.layout import (
    BLOCK,
    META_LIMIT,
    RECORD_HEADER_SIZE,
    RecordHeader,
    align,
    crc32,
)
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import Outcome, check_all, meta, payload, segment_of


def test_a_record_in_the_pixels_of_a_torn_one_took_the_place_of_another(
    open_rig: OpenRig,
) -> None:
    """A peer that guesses where its data set will lie, and a power cut that loses its record."""
    rig = open_rig(segment_size=4 << 20, large_instance=1 << 20)
    victim = rig.commit(payload(1, 20_000), meta(1, "pacs")).kept
    rig.feed()
    place = victim.offset + BLOCK + align(20_000)
    what, body = meta(666, "elsewhere").to_bytes(), b"evil" * 100
    forged = RecordHeader(
        flags=0,
        generation=victim.generation,
        offset=place + BLOCK,
        id=victim.id,
        length=len(body),
        crc=crc32(body),
        meta_length=len(what),
        meta_crc=crc32(what),
    )
    data = (forged.to_bytes() + what + body).ljust(40_000, b"\0")
    torn = rig.commit(data, meta(2, "pacs")).kept
    assert torn.offset == place
    path = segment_of(rig, victim)
    rig.close()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(BLOCK))
    again = open_rig()
    again.acked = {victim.id: rig.acked[victim.id]}
    check_all(again)


@pytest.mark.parametrize("room", [0, 10, 64, BLOCK])
def test_a_description_that_padding_made_too_long_was_never_found_again(
    open_rig: OpenRig, room: int
) -> None:
    rig = open_rig(segment_size=8 << 20)
    writer, outcome = rig.begin(), Outcome()
    writer.append(memoryview(payload(5, 20_000)))
    writer.commit(meta(5, "pacs").to_bytes().ljust(META_LIMIT - room), outcome)
    rig.loop.run_until(lambda: outcome.told)
    rig.close()
    assert open_rig(segment_size=8 << 20).report.added == (outcome.ref is not None)
    assert (outcome.error is None) == (room >= RECORD_HEADER_SIZE), "it fills its blocks exactly"
