"""The pool of blocks: what it keeps, and when it is short."""

import ctypes
import errno
import itertools
import mmap
from collections import Counter

import pytest

from router.spool.blocks import _HUGE_PAGE, _HUGE_SHARE, BLOCK_SIZE, SMALL_BLOCK, BlockPool


def test_memory_falls_back_after_a_burst() -> None:
    pool = BlockPool(4 * BLOCK_SIZE)
    blocks = [pool.take() for _ in range(10)]
    assert pool.scarce
    assert pool.in_use == 10 * BLOCK_SIZE
    for block in blocks:
        pool.give_back([block])
    assert pool.in_use == 0
    assert not pool.scarce
    assert len(pool._free) <= 4
    kept = [pool.take() for _ in range(4)]
    assert not pool.scarce
    pool.give_back(kept)
    assert (pool.in_use, len(pool._free)) == (0, 4)
    assert len({id(block) for block in kept}) == 4


def test_blocks_of_both_sizes_count_and_are_used_again() -> None:
    pool = BlockPool(2 * BLOCK_SIZE)
    small, block = pool.take_small(), pool.take()
    assert pool.in_use == BLOCK_SIZE + SMALL_BLOCK == len(small) + len(block)
    pool.give_back([small, block])
    assert pool.in_use == 0
    assert pool.take_small() is small
    assert pool.take() is block
    more = [pool.take_small() for _ in range(16)]
    assert pool.scarce
    assert not pool.exhausted
    more += [pool.take()]
    assert not pool.exhausted
    more += [pool.take()]
    assert pool.exhausted
    pool.give_back([*more, small, block])
    assert pool.in_use == 0
    idle = [*pool._free, *pool._free_small]
    assert sum(map(len, idle)) == pool._idle <= 2 * BLOCK_SIZE, "more than the limit is kept"


def _address(block: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


def test_the_first_blocks_lie_in_huge_pages_and_apart() -> None:
    pool = BlockPool(64 * _HUGE_PAGE)
    in_a_page = _HUGE_PAGE // BLOCK_SIZE
    blocks = [pool.take() for _ in range(4 * in_a_page + 3)]
    addresses = sorted(map(_address, blocks))
    assert all(address % 4096 == 0 for address in addresses)
    assert all(b - a >= BLOCK_SIZE for a, b in itertools.pairwise(addresses))
    assert all(len(block) == BLOCK_SIZE for block in blocks)
    pages = Counter(id(block.obj) for block in blocks)
    assert sorted(pages.values()) == [1, 1, 1, *[in_a_page] * 4]
    for number, block in enumerate(blocks):
        block[:] = bytes([number % 251]) * BLOCK_SIZE
    assert all(block[0] == block[-1] == n % 251 for n, block in enumerate(blocks))


def test_a_kernel_without_huge_pages_gives_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Old(mmap.mmap):
        def madvise(self, *arguments: int) -> None:
            asked.append(arguments)
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Old)
    pool = BlockPool(_HUGE_SHARE * _HUGE_PAGE)
    block = pool.take()
    assert asked == [(mmap.MADV_HUGEPAGE,)]
    block[:] = b"x" * BLOCK_SIZE
    assert _address(block) % 4096 == 0


def test_a_small_limit_has_none() -> None:
    pool = BlockPool(4 * BLOCK_SIZE)
    assert id(pool.take().obj) != id(pool.take().obj)


def test_blocks_of_huge_pages_are_not_lost_to_a_burst() -> None:
    pool = BlockPool(_HUGE_SHARE * _HUGE_PAGE)
    blocks = [pool.take() for _ in range(3 * _HUGE_SHARE * _HUGE_PAGE // BLOCK_SIZE)]
    huge = {id(block) for block in blocks[: _HUGE_PAGE // BLOCK_SIZE]}
    pool.give_back(blocks)  # the first of them while there is no room for more
    assert pool.in_use == 0
    again = [pool.take() for _ in range(len(blocks))]
    assert huge <= {id(block) for block in again}
    assert len({id(block) for block in again}) == len(again)
