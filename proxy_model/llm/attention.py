"""Attention of one packed step: rows of many sequences, each looking at its own slot of the cache.

The rows of a step are single tokens of decoding sequences, the i-th in slot i, then siblings: further candidates for
the places of single tokens (`Branches`), then chunks: runs of consecutive tokens of one sequence (a draft of what may
follow its single token, a prompt on its way in, or a whole text that is only read). One function serves every
architecture.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from proxy_model.llm.branches import Branches, OwnTokens
from proxy_model.llm.decode_runs import DecodeRun, decode_runs
from proxy_model.llm.kv_cache import KVCache

LENGTH_BUCKET = 64
"""Decode attention reads the cache in multiples of this: a row's sums then run in one order whatever is beside it."""

RUN_BYTES = 1 << 18
"""Another run of decoding sequences takes as long as reading so many bytes of keys and values for nothing: some 40 us a
layer, measured with the demo LLM on CPU."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `start` to `start + num_rows` of a step: tokens `offset` onwards of the sequence in `slot`."""

    start: int
    num_rows: int
    slot: int = 0
    offset: int = 0

    @property
    def end(self) -> int:
        """The row behind it."""
        return self.start + self.num_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedStep:
    """N tokens that go through the LLM together."""

    tokens: Tensor
    """(N,) token ids."""

    positions: Tensor
    """(N,) their positions in their sequences."""

    slots: Tensor
    """(N,) their slots in the cache."""

    lengths: tuple[int, ...] = ()
    """Of the decoding sequences, this token included. They have the first rows, a token each, in slots 0, 1, 2 ..."""

    chunks: tuple[Chunk, ...] = ()
    cache: KVCache | None = None
    """None: every chunk is a whole text and nothing is kept."""

    branches: Branches | None = None
    """None: every single token is a settled one."""

    masks: dict[tuple[DecodeRun | Chunk, int | None], Tensor] = field(default_factory=dict)
    """Additive masks of rows under a sliding window; made once per step."""

    runs: dict[int, tuple[DecodeRun, ...]] = field(default_factory=dict)
    """How the decoding sequences are read, by the bytes of a token in a layer; found once per step."""

    @property
    def kept_rows(self) -> tuple[slice, ...]:
        """Those whose keys and values the cache gets: all but the siblings."""
        if self.branches is None or not self.branches.num_siblings:
            return (slice(None),)
        behind = self.num_decode + self.branches.num_siblings
        return (slice(self.num_decode), slice(behind, None))[: 1 + bool(self.chunks)]

    @property
    def num_decode(self) -> int:
        """Rows of decoding sequences."""
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What differs between layers and architectures."""

    scale: float
    sliding_window: int | None = None
    softcap: float | None = None


def attend(
    step: PackedStep, layer: int, queries: Tensor, keys: Tensor, values: Tensor, shape: AttentionShape
) -> Tensor:
    """Causal attention of every row over its own sequence.

    `queries` is (N, num_heads, head_dim); `keys` and `values` are (N, num_kv_heads, head_dim), rotary already applied.
    Returns (N, num_heads, head_dim).
    """
    if step.cache is not None:
        for rows in step.kept_rows:
            step.cache.write(layer, step.slots[rows], step.positions[rows], keys[rows], values[rows])
    if step.branches is None:
        parts = [_attend_decode(step, layer, run, queries, shape) for run in _runs(step, keys)]
    else:
        parts = [_attend_branches(step, step.branches, layer, queries, keys, values, shape)]
    parts += [_attend_chunk(step, layer, chunk, queries, keys, values, shape) for chunk in step.chunks]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _runs(step: PackedStep, keys: Tensor) -> tuple[DecodeRun, ...]:
    """The decoding sequences; in more than one run on CPU only, where a run's own cost was measured."""
    if step.cache is None or not step.lengths:
        return ()
    bytes_per_token = 2 * keys[0].nbytes
    runs = step.runs.get(bytes_per_token)
    if runs is None:
        lengths = tuple(-(-length // LENGTH_BUCKET) * LENGTH_BUCKET for length in step.lengths)
        is_on_cpu = keys.device.type == "cpu"
        whole = (DecodeRun(0, len(lengths), max(lengths)),)
        runs = decode_runs(lengths, RUN_BYTES // bytes_per_token) if is_on_cpu else whole
        step.runs[bytes_per_token] = runs
    return runs


def _attend_decode(step: PackedStep, layer: int, run: DecodeRun, queries: Tensor, shape: AttentionShape) -> Tensor:
    keys, values, mask = _read(step, layer, run, queries, shape)
    grouped = queries[run.start : run.stop].unflatten(1, (keys.shape[1], -1))  # (B, num_kv_heads, group, head_dim)
    attention = _products if queries.device.type == "cpu" else _attention
    return attention(grouped, keys, values, mask, shape).flatten(1, 2)


def _attend_branches(
    step: PackedStep,
    branches: Branches,
    layer: int,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    shape: AttentionShape,
) -> Tensor:
    """The single tokens and the siblings (B + S, num_heads, head_dim), all of a slot in one product.

    A candidate's own key and value are taken into account row by row, not out of the cache, where one candidate's are:
    so its numbers are the same alone and among siblings.
    """
    end = step.num_decode + branches.num_siblings
    branches.keep(layer, keys[step.num_decode : end], values[step.num_decode : end])
    grouped = queries[:end].unflatten(1, (keys.shape[1], -1))  # (B + S, num_kv_heads, group, head_dim)
    own = torch.matmul(grouped, keys[:end, :, :, None])  # (B + S, num_kv_heads, group, 1)
    spread, own = branches.spread(grouped), branches.spread(own)  # (B, num_kv_heads, W * group, ...)
    parts = [
        _products_with_own(
            spread[run.start : run.stop],
            own[run.start : run.stop],
            branches.own_tokens(run.start, run.stop),
            *_read(step, layer, run, queries, shape),
            shape,
        )
        for run in _runs(step, keys)
    ]
    attended, weights = parts[0] if len(parts) == 1 else (torch.cat(part) for part in zip(*parts, strict=True))
    attended, weights = branches.gather(attended), branches.gather(weights)
    return attended.addcmul_(weights, values[:end, :, None]).flatten(1, 2)


def _read(
    step: PackedStep, layer: int, run: DecodeRun, queries: Tensor, shape: AttentionShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values (B, num_kv_heads, length, head_dim) of a run's slots, and their mask."""
    assert step.cache is not None
    rows = slice(run.start, run.stop)
    length = min(run.length, step.cache.capacity)
    keys, values = (stored[rows, :, :length] for stored in step.cache.layer(layer))
    mask = step.masks.get((run, shape.sliding_window))
    if mask is None:
        dtype = torch.float32 if queries.device.type == "cpu" else queries.dtype
        mask = _decode_mask(step.positions[rows], length, shape.sliding_window, dtype)
        step.masks[run, shape.sliding_window] = mask
    return keys, values, mask


def _decode_mask(positions: Tensor, length: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """(B, 1, 1, length): 0 where a row may look, -inf elsewhere."""
    columns = torch.arange(length, device=positions.device)
    is_hidden = columns > positions[:, None]
    if window is not None:
        is_hidden |= columns <= positions[:, None] - window
    mask = torch.zeros(is_hidden.shape, dtype=dtype, device=positions.device)
    return mask.masked_fill_(is_hidden, float("-inf"))[:, None, None, :]


def _attend_chunk(
    step: PackedStep, layer: int, chunk: Chunk, queries: Tensor, keys: Tensor, values: Tensor, shape: AttentionShape
) -> Tensor:
    rows = slice(chunk.start, chunk.end)
    end = chunk.offset + chunk.num_rows
    if chunk.offset and step.cache is not None:
        stored_keys, stored_values = step.cache.layer(layer)
        all_keys, all_values = stored_keys[chunk.slot, :, :end], stored_values[chunk.slot, :, :end]
    else:
        all_keys, all_values = keys[rows].transpose(0, 1), values[rows].transpose(0, 1)
    mask = step.masks.get((chunk, shape.sliding_window))
    if mask is None:
        mask = step.masks[chunk, shape.sliding_window] = _chunk_mask(chunk, shape.sliding_window, queries)
    attended = _attention(queries[rows].transpose(0, 1)[None], all_keys[None], all_values[None], mask, shape)
    return attended[0].transpose(0, 1)


def _chunk_mask(chunk: Chunk, window: int | None, queries: Tensor) -> Tensor:
    """(num_rows, offset + num_rows): 0 where a row may look, -inf elsewhere."""
    columns = torch.arange(chunk.offset + chunk.num_rows, device=queries.device)
    own = columns[chunk.offset :, None]
    is_hidden = columns > own
    if window is not None:
        is_hidden |= columns <= own - window
    mask = torch.zeros(is_hidden.shape, dtype=queries.dtype, device=queries.device)
    return mask.masked_fill_(is_hidden, float("-inf"))


def _products(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, shape: AttentionShape) -> Tensor:
    """`_attention` of few queries as two batched products: on CPUs torch's fused kernel takes 2 to 5 times as long.

    The scores are taken transposed, as (length, group): the keys are then read as they lie in the cache.
    """
    weights = _weights(_scores(queries, keys), mask, shape).to(values.dtype)
    return _mean(weights, values)


def _products_with_own(
    queries: Tensor,
    own_scores: Tensor,
    own: OwnTokens,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    shape: AttentionShape,
) -> tuple[Tensor, Tensor]:
    """`_products` with the candidates' own scores, and without their own values; beside it what those weigh."""
    scores = own.put(_scores(queries, keys), own_scores)
    weights = _weights(scores, mask, shape).to(values.dtype)
    own_weights = own.take(weights)
    return _mean(weights, values), own_weights


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """(B, num_kv_heads, group, length), unscaled."""
    scores = torch.bmm(keys.flatten(0, 1), queries.flatten(0, 1).transpose(1, 2))
    of_heads: Tensor = scores.transpose(1, 2).unflatten(0, (-1, keys.shape[1]))
    return of_heads


def _weights(scores: Tensor, mask: Tensor, shape: AttentionShape) -> Tensor:
    if shape.softcap is None:
        return torch.softmax(torch.add(mask, scores, alpha=shape.scale), dim=-1)
    capped = torch.tanh(scores.float() * (shape.scale / shape.softcap)) * shape.softcap
    return torch.softmax(capped + mask, dim=-1)


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    """(B, num_kv_heads, group, head_dim)."""
    mean: Tensor = torch.bmm(weights.flatten(0, 1), values.flatten(0, 1)).unflatten(0, (-1, values.shape[1]))
    return mean


def _attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, shape: AttentionShape) -> Tensor:
    """Softmax attention over the last but one dimension of `keys`; heads of a group share keys and values."""
    if shape.softcap is None:
        is_grouped = queries.shape[1] != keys.shape[1]
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=shape.scale, enable_gqa=is_grouped
        )
    num_groups = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(num_groups, 1), values.repeat_interleave(num_groups, 1)
    scores = torch.matmul(queries, keys.transpose(-1, -2)) * shape.scale
    scores = torch.tanh(scores / shape.softcap) * shape.softcap + mask
    return torch.matmul(torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype), values)
