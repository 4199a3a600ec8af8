"""What the cache of keys and values costs."""

import psutil
import torch

from proxy_model.llm.kv_cache import KVCache

NUM_SLOTS = 40
MEGABYTE = 1 << 20


def test_a_cache_takes_the_memory_of_what_is_written() -> None:
    cache = KVCache(num_layers=1, num_slots=NUM_SLOTS, capacity=4096)
    one_token = torch.ones(NUM_SLOTS, 4, 64)
    before = psutil.Process().memory_info().rss

    cache.write(0, torch.arange(NUM_SLOTS), torch.zeros(NUM_SLOTS, dtype=torch.long), one_token, one_token)

    assert psutil.Process().memory_info().rss - before < 32 * MEGABYTE  # of 320
    assert cache.layer(0)[0].sum() == NUM_SLOTS * 4 * 64


def test_tokens_move_between_caches_of_other_shapes() -> None:
    """Token number t of slot s holds 100 s + t; nothing else of the target is touched."""
    cache, pool = KVCache(1, num_slots=3, capacity=20), KVCache(1, num_slots=4, capacity=8)
    slots = torch.arange(3).repeat_interleave(20)
    positions = torch.arange(20).repeat(3)
    marks = (100.0 * slots + positions)[:, None, None].expand(-1, 2, 4)
    cache.write(0, slots, positions, marks, -marks)

    pool.take(cache, source=1, target=2, start=8, length=8)
    pool.take(cache, source=0, target=3, start=16, length=3)
    cache.take_slots(pool, [2, 3], target=2, start=4, length=11)

    moved = [200, 201, 202, 203, *range(108, 116), 16, 17, 18, *range(215, 220)]
    keys, values = cache.layer(0)
    assert keys[2, 1, :, 3].tolist() == moved
    assert values[2, 0, :, 1].tolist() == [-number for number in moved]
    assert pool.layer(0)[0][2, 0, :, 0].tolist() == list(range(108, 116))
    assert pool.layer(0)[0][3, 0, :, 0].tolist() == [16, 17, 18, 0, 0, 0, 0, 0]
