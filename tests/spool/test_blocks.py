"""The pool of blocks: what it keeps, and when it is short."""

from router.spool.blocks import BLOCK_SIZE, SMALL_BLOCK, BlockPool


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
