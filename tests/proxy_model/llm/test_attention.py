"""Decode attention out of the cache, in the dtype and the shape that a CPU serves."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from proxy_model.llm.attention import AttentionShape, PackedStep, attend
from proxy_model.llm.kv_cache import KVCache

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, CAPACITY = 6, 2, 64, 1024
LENGTHS = (3, 64, 65, 130, 700, 1000)


def filled_cache(dtype: torch.dtype) -> KVCache:
    """One sequence of each of LENGTHS, a slot each."""
    generator = torch.Generator().manual_seed(1)
    cache = KVCache(1, len(LENGTHS), CAPACITY)
    for slot, length in enumerate(LENGTHS):
        keys, values = torch.randn(2, length, NUM_KV_HEADS, HEAD_DIM, generator=generator).to(dtype)
        cache.write(0, torch.full((length,), slot), torch.arange(length), keys, values)
    return cache


def next_states(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of each sequence's newest token, which takes the place of its last one."""
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(len(LENGTHS), NUM_HEADS, HEAD_DIM, generator=generator).to(dtype)
    keys, values = torch.randn(2, len(LENGTHS), NUM_KV_HEADS, HEAD_DIM, generator=generator).to(dtype)
    return queries, keys, values


def attended(cache: KVCache, num_rows: int, dtype: torch.dtype, shape: AttentionShape) -> Tensor:
    """The first `num_rows` sequences, decoded together."""
    positions = torch.tensor(LENGTHS[:num_rows]) - 1
    queries, keys, values = (states[:num_rows] for states in next_states(dtype))
    step = PackedStep(
        tokens=positions,
        positions=positions,
        slots=torch.arange(num_rows),
        lengths=LENGTHS[:num_rows],
        cache=cache,
    )
    return attend(step, 0, queries, keys, values, shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("window", [None, 50])
def test_it_is_softmax_attention_over_each_sequence(dtype: torch.dtype, tolerance: float, window: int | None) -> None:
    cache = filled_cache(dtype)

    found = attended(cache, len(LENGTHS), dtype, AttentionShape(scale=0.1, sliding_window=window))

    queries, (keys, values) = next_states(dtype)[0].float(), cache.layer(0)
    for row, length in enumerate(LENGTHS):
        seen = slice(0 if window is None else max(0, length - window), length)
        own_keys, own_values = (each[row, :, seen].float().repeat_interleave(3, 0) for each in (keys, values))
        expected = F.scaled_dot_product_attention(queries[row, :, None], own_keys, own_values, scale=0.1)[:, 0]
        torch.testing.assert_close(found[row].float(), expected, atol=tolerance, rtol=tolerance)


def test_a_softcap_bounds_the_scores() -> None:
    cache = filled_cache(torch.float32)

    found = attended(cache, 1, torch.float32, AttentionShape(scale=1.0, softcap=2.0))

    keys, values = (each[0, :, :3].repeat_interleave(3, 0) for each in cache.layer(0))
    scores = (next_states(torch.float32)[0][0, :, None] * keys).sum(-1)
    expected = ((2.0 * torch.tanh(scores / 2.0)).softmax(-1)[..., None] * values).sum(1)
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_to_the_bit_beside_longer_ones(dtype: torch.dtype) -> None:
    cache, shape = filled_cache(dtype), AttentionShape(scale=0.125)

    together = attended(cache, len(LENGTHS), dtype, shape)

    for num_rows in range(1, len(LENGTHS)):
        assert torch.equal(attended(cache, num_rows, dtype, shape), together[:num_rows])


def test_layers_of_other_sizes_cut_the_same_step_otherwise() -> None:
    """The narrow layer's tokens are cheap to read for nothing, so its sequences are read in fewer runs."""
    lengths = torch.tensor(LENGTHS)
    cache = KVCache(2, len(LENGTHS), CAPACITY)
    step = PackedStep(
        tokens=lengths, positions=lengths - 1, slots=torch.arange(len(LENGTHS)), lengths=LENGTHS, cache=cache
    )
    generator = torch.Generator().manual_seed(3)
    found, expected = [], []
    for layer, (num_heads, head_dim) in enumerate([(8, 64), (1, 16)]):
        queries, keys, values = torch.randn(3, len(LENGTHS), num_heads, head_dim, generator=generator)
        found.append(attend(step, layer, queries, keys, values, AttentionShape(scale=1.0)))
        scores = (queries * keys).sum(-1)  # the other tokens in the cache are zeros
        weight = scores.exp() / (scores.exp() + (lengths - 1)[:, None])
        expected.append(weight[..., None] * values)

    torch.testing.assert_close(found, expected)
    assert [len(runs) for runs in step.runs.values()] == [4, 2]
