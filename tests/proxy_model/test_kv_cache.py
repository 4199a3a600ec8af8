"""What the cache of keys and values costs."""

import psutil
import torch

from proxy_model.kv_cache import KVCache

NUM_SLOTS = 40
MEGABYTE = 1 << 20


def test_a_cache_takes_the_memory_of_what_is_written() -> None:
    cache = KVCache(num_layers=1, num_slots=NUM_SLOTS, capacity=4096)
    one_token = torch.ones(NUM_SLOTS, 4, 64)
    before = psutil.Process().memory_info().rss

    cache.write(0, torch.arange(NUM_SLOTS), torch.zeros(NUM_SLOTS, dtype=torch.long), one_token, one_token)

    assert psutil.Process().memory_info().rss - before < 32 * MEGABYTE  # of 320
    assert cache.layer(0)[0].sum() == NUM_SLOTS * 4 * 64
