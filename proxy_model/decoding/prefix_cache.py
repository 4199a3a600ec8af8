"""Keys and values of prompts that were read, for prompts that begin alike: they are copied in instead of read again.

A prompt is read in blocks counted from its beginning, each attended to by itself (`Scheduler`). So a block's keys,
values and states are a function of its own tokens and those before, whatever prompt, step or batch it is in: to the
bit where a row of a product does not depend on how many rows there are, which holds for `FrozenLinear`'s blocked
bfloat16 weights at any number and for float32 ones from three rows on. What an answer's own tokens leave in the cache
is never kept: decoding takes its sums in another order than reading.

A proxy has no part in any of this, so all proxies share what is kept.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence as Rows
from dataclasses import dataclass

from torch import Tensor

from proxy_model.decoding.request import GenerationRequest
from proxy_model.llm.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class KeptBlock:
    """One block of a prompt."""

    slot: int
    """Where its keys and values are in the pool."""

    state: Tensor
    """(D,) h after its last token: a prompt that ends with it has nothing left to read."""


class PrefixCache:
    """As many blocks as `pool` has slots, each a slot's capacity long; the one unused for longest makes room."""

    def __init__(self, pool: KVCache) -> None:
        self._pool = pool
        self._free = list(range(pool.num_slots))
        self._kept: OrderedDict[bytes, KeptBlock] = OrderedDict()

    @property
    def block_tokens(self) -> int:
        """Where prompts are cut."""
        return self._pool.capacity

    def names(self, request: GenerationRequest) -> tuple[bytes, ...]:
        """A name for each of the prompt's blocks, its last and shorter one included: a digest over it and all before.

        Empty where nothing is kept, and for a prompt whose log-probabilities are wanted: it has to be read.
        """
        if not self._pool.num_slots or request.params.prompt_logprobs is not None:
            return ()
        found = [hashlib.blake2b(request.prefix_scope.encode(), digest_size=32).digest()]
        for start in range(0, len(request.prompt_token_ids), self.block_tokens):
            tokens = array("q", request.prompt_token_ids[start : start + self.block_tokens])
            found.append(hashlib.blake2b(found[-1] + tokens.tobytes(), digest_size=32).digest())
        return tuple(found[1:])

    def find(self, names: Rows[bytes]) -> list[KeptBlock]:
        """The first of the blocks, as far as they are kept without a gap. They count as used, the first one last."""
        found = []
        for name in names:
            if name not in self._kept:
                break
            found.append(self._kept[name])
        for name in reversed(names[: len(found)]):
            self._kept.move_to_end(name)
        return found

    def restore(self, blocks: Rows[KeptBlock], cache: KVCache, slot: int, start: int, length: int) -> None:
        """Copy `length` tokens, of `blocks` one after the other, into a slot of `cache` from token `start` on."""
        cache.take_slots(self._pool, [block.slot for block in blocks], slot, start, length)

    def keep(self, name: bytes, state: Tensor, cache: KVCache, slot: int, start: int, length: int) -> None:
        """Copy a block that was just read, `length` tokens of a slot of `cache` from token `start` on."""
        if name in self._kept:
            return
        own = self._free.pop() if self._free else self._kept.popitem(last=False)[1].slot
        self._pool.take(cache, slot, own, start, length)
        self._kept[name] = KeptBlock(own, state.clone())  # as a view it would hold all of the step's states
