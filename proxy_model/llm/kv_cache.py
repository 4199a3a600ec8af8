"""Preallocated keys and values, one slot per sequence."""

import math
import mmap
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class KVCache:
    """Keys and values of `num_slots` sequences of up to `capacity` tokens, one pair of tensors per layer.

    A layer's tensors `(num_slots, num_kv_heads, capacity, head_dim)` are allocated when the layer first writes, so that
    layers of different shapes need no declaration. Pages that were never written cost no memory on CPU.
    """

    def __init__(self, num_layers: int, num_slots: int, capacity: int) -> None:
        self.num_slots = num_slots
        self.capacity = capacity
        self.keys: list[Tensor | None] = [None] * num_layers
        self.values: list[Tensor | None] = [None] * num_layers

    def write(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store `keys` and `values` `(N, num_kv_heads, head_dim)` of N tokens at their slots and positions `(N,)`."""
        if self.keys[layer] is None:
            self.keys[layer] = self._allocate(keys)
            self.values[layer] = self._allocate(values)
        stored_keys, stored_values = self.layer(layer)
        stored_keys[slots, :, positions] = keys
        stored_values[slots, :, positions] = values

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, whole."""
        keys, values = self.keys[layer], self.values[layer]
        assert keys is not None and values is not None
        return keys, values

    @property
    def num_layers(self) -> int:
        """Layers, written to or not."""
        return len(self.keys)

    def reserve(self, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
        """Allocate what has not been written to, on CPU: its addresses are then fixed."""
        like = torch.empty(1, num_kv_heads, head_dim, dtype=dtype)
        for stored in (self.keys, self.values):
            stored[:] = [self._allocate(like) if tensor is None else tensor for tensor in stored]

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers that have been written to."""
        written = [tensor for tensor in (*self.keys, *self.values) if tensor is not None]
        return sum(tensor.shape[1] * tensor.shape[3] * tensor.element_size() for tensor in written)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of slot `source` to slot `target`."""
        self.take(self, source, target, 0, length)

    def take(self, other: "KVCache", source: int, target: int, start: int, length: int) -> None:
        """Copy `length` tokens of `other`'s slot `source`, from token `start` on, to the beginning of slot `target`."""
        for own, its in self._beside(other):
            own[target, :, :length] = its[source, :, start : start + length]

    def take_slots(self, other: "KVCache", sources: Sequence[int], target: int, start: int, length: int) -> None:
        """Copy `length` tokens of `other`'s slots `sources`, one after the other, to slot `target` from `start` on."""
        for own, its in self._beside(other):
            joined = torch.cat([its[source] for source in sources], dim=1)  # (num_kv_heads, tokens, head_dim)
            own[target, :, start : start + length] = joined[:, :length]

    def _beside(self, other: "KVCache") -> Iterator[tuple[Tensor, Tensor]]:
        """This cache's tensors and those of `other`, as far as the latter were ever written."""
        for mine, its in ((self.keys, other.keys), (self.values, other.values)):
            for layer, tensor in enumerate(its):
                if tensor is None:
                    continue
                if mine[layer] is None:
                    mine[layer] = self._allocate(tensor[0].transpose(0, 1))
                own = mine[layer]
                assert own is not None
                yield own, tensor

    @torch.inference_mode(False)
    def _allocate(self, like: Tensor) -> Tensor:
        """Zeros: what is never written is read behind a mask, where a NaN would survive.

        They may be written outside of a step, too: a request that is aborted between two steps moves another one's.
        """
        shape = (self.num_slots, like.shape[1], self.capacity, like.shape[2])
        if like.device.type != "cpu":
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        return torch.frombuffer(_untouched(math.prod(shape) * like.element_size()), dtype=like.dtype).view(shape)


def _untouched(num_bytes: int) -> mmap.mmap:
    """Zeros that take memory page by page as they are written.

    Small pages: numpy asks for huge ones, of which the first token of a slot would have to clear dozens (some 40 MB and
    .1 s a slot of the demo LLM).
    """
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
