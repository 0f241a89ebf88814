"""Records and segment headers as bytes: what is not sound must read as nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.spool.layout import (
    BLOCK,
    FLAG_LARGE,
    FLAG_MOVED,
    META_LIMIT,
    RECORD_HEADER_SIZE,
    RecordHeader,
    SegmentHeader,
    align,
    crc32,
    record_size,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
HEADERS = st.builds(
    RecordHeader,
    flags=st.integers(0, 3),
    generation=U64,
    offset=U64,
    id=U64,
    length=U64,
    crc=U32,
    meta_length=st.integers(0, META_LIMIT),
    meta_crc=U32,
    origin=U64,
)
SAMPLE = RecordHeader(0, 7, 8192, 42, 1000, 0xDEADBEEF, 300, 0x12345678, 3)


@pytest.mark.parametrize("bit", range(8))
def test_a_record_header_with_any_bit_flipped_is_none(bit: int) -> None:
    raw = SAMPLE.to_bytes()
    for at in range(len(raw)):
        bad = bytearray(raw)
        bad[at] ^= 1 << bit
        assert RecordHeader.from_bytes(bytes(bad)) is None, at


@pytest.mark.parametrize("bit", range(8))
def test_a_segment_header_with_any_bit_flipped_is_none(bit: int) -> None:
    raw = SegmentHeader(1 << 20, 9, 4).to_bytes()
    for at in range(36):
        bad = bytearray(raw)
        bad[at] ^= 1 << bit
        assert SegmentHeader.from_bytes(bytes(bad)) is None, at


def test_a_header_cut_short_is_none() -> None:
    record, segment = SAMPLE.to_bytes(), SegmentHeader(1 << 20, 9).to_bytes()
    assert [RecordHeader.from_bytes(record[:n]) for n in range(RECORD_HEADER_SIZE)] == [None] * 64
    assert [SegmentHeader.from_bytes(segment[:n]) for n in range(36)] == [None] * 36
    assert SegmentHeader.from_bytes(segment[:36]) == SegmentHeader(1 << 20, 9)


def test_zeros_and_ones_are_no_headers() -> None:
    for filler in (b"\0", b"\xff"):
        assert RecordHeader.from_bytes(filler * BLOCK) is None
        assert SegmentHeader.from_bytes(filler * BLOCK) is None


def test_a_description_over_the_limit_is_no_header() -> None:
    # The length is read from disk and allocated: a sound checksum must not be enough.
    raw = RecordHeader(0, 1, 4096, 1, 0, 0, META_LIMIT + 1, 0).to_bytes()
    assert RecordHeader.from_bytes(raw) is None


def test_another_version_is_no_header() -> None:
    raw = bytearray(SAMPLE.to_bytes())
    raw[4] = 2
    raw[60:] = crc32(raw[:60]).to_bytes(4, "little")
    assert RecordHeader.from_bytes(bytes(raw)) is None


@given(HEADERS)
@settings(max_examples=100, deadline=None)
def test_record_headers_come_back_as_they_were(header: RecordHeader) -> None:
    raw = header.to_bytes()
    assert len(raw) == RECORD_HEADER_SIZE
    assert RecordHeader.from_bytes(raw) == header
    assert RecordHeader.from_bytes(memoryview(raw + b"more")) == header


@given(U64, U64, U64)
@settings(max_examples=50, deadline=None)
def test_segment_headers_come_back_as_they_were(size: int, generation: int, past: int) -> None:
    header = SegmentHeader(size, generation, past)
    assert len(header.to_bytes()) == BLOCK
    assert SegmentHeader.from_bytes(header.to_bytes()) == header


def test_places_of_small_and_large_records() -> None:
    small = RecordHeader(0, 1, 8192, 1, 5000, 0, 100, 0)
    assert (small.large, small.moved) == (False, False)
    assert small.data_offset == 8192 + 64 + 100
    assert small.size == 2 * BLOCK
    large = RecordHeader(FLAG_LARGE | FLAG_MOVED, 1, 8192, 1, 1 << 40, 0, 100, 0)
    assert (large.large, large.moved) == (True, True)
    assert (large.data_offset, large.size) == (0, BLOCK)


def test_sizes_end_on_block_boundaries() -> None:
    assert [align(n) for n in (0, 1, 4095, 4096, 4097)] == [0, 4096, 4096, 4096, 8192]
    assert record_size(0, 0) == BLOCK
    assert record_size(0, BLOCK - 64) == BLOCK
    assert record_size(0, BLOCK - 63) == 2 * BLOCK
    assert record_size(BLOCK, 0) == 2 * BLOCK
