"""Candidates of one position side by side in one pass: each reads its sequence's prefix and itself, none the others.

The first candidate of a slot is its single token of the step; the others, its siblings, come behind all single tokens
and leave nothing in the cache, until the one that is accepted is written there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.llm.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """Which entries of scores and weights (B, num_kv_heads, W * group, length) are candidates' with themselves."""

    columns: Tensor
    """(B, 1, 1, 1): where in its slot a candidate stands."""

    is_walking: Tensor | None
    """(B, 1, 1, 1): False where the token is settled and the cache holds it. None: nowhere."""

    def put(self, scores: Tensor, own: Tensor) -> Tensor:
        """`scores`, changed, with the candidates' `own` (B, num_kv_heads, W * group, 1)."""
        columns = self.columns.expand_as(own)
        if self.is_walking is not None:
            own = torch.where(self.is_walking, own, scores.gather(-1, columns))
        return scores.scatter_(-1, columns, own)

    def take(self, weights: Tensor) -> Tensor:
        """The candidates' own (B, num_kv_heads, W * group, 1) out of `weights`, which changes, 0 if settled."""
        columns = self.columns.expand(*weights.shape[:-1], 1)
        own = weights.gather(-1, columns)
        if self.is_walking is None:
            weights.scatter_(-1, columns, 0.0)
            return own
        weights.scatter_(-1, columns, own.masked_fill(self.is_walking, 0.0))
        return own.masked_fill_(~self.is_walking, 0.0)


class Branches:
    """Where the candidates of B slots stand in a step, and what the LLM made of the S siblings."""

    def __init__(self, widths: Sequence[int], lengths: Sequence[int], device: torch.device) -> None:
        """`widths` says how many candidates each slot has: 0, its token is settled; `lengths`, up to and with them."""
        self.widths = widths
        siblings = [(slot, place) for slot, width in enumerate(widths) for place in range(1, width)]
        self._rows = {sibling: row for row, sibling in enumerate(siblings, start=len(widths))}
        self._width = max(1, *widths)
        table = [
            self.row_of(slot, min(place, max(0, width - 1)))
            for slot, width in enumerate(widths)
            for place in range(self._width)
        ]
        places = [slot * self._width for slot in range(len(widths))]
        places += [slot * self._width + place for slot, place in siblings]
        self._table = torch.tensor(table, device=device)
        self._places = torch.tensor(places, device=device)
        self._positions = torch.tensor(lengths, device=device) - 1
        self._is_walking = None if all(widths) else torch.tensor(widths, device=device) > 0
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def num_siblings(self) -> int:
        """S."""
        return len(self._rows)

    def row_of(self, slot: int, place: int) -> int:
        """A candidate's row in the step."""
        return self._rows[slot, place] if place else slot

    def own_tokens(self, start: int, stop: int) -> OwnTokens:
        """Of slots `start` to `stop`."""
        is_walking = None if self._is_walking is None else self._is_walking[start:stop, None, None, None]
        return OwnTokens(self._positions[start:stop, None, None, None], is_walking)

    def spread(self, rows: Tensor) -> Tensor:
        """(B + S, heads, group, size) -> (B, heads, W * group, size); a slot with fewer than W repeats its last one."""
        if not self._rows:
            return rows
        by_slot: Tensor = rows[self._table].unflatten(0, (-1, self._width))
        return by_slot.transpose(1, 2).flatten(2, 3)

    def gather(self, spread: Tensor) -> Tensor:
        """The inverse of `spread`."""
        if not self._rows:
            return spread
        rows: Tensor = spread.unflatten(2, (self._width, -1)).transpose(1, 2).flatten(0, 1)[self._places]
        return rows

    def keep(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Note the siblings' keys and values (S, num_kv_heads, head_dim) of a layer."""
        self._kept[layer] = keys, values

    def accept(self, cache: KVCache, chosen: Sequence[tuple[int, int]]) -> None:
        """Write the keys and values of siblings that were accepted, by slot and place, to where they stand."""
        if not chosen:
            return
        slots = torch.tensor([slot for slot, _ in chosen], device=self._table.device)
        rows = torch.tensor([self._rows[each] for each in chosen], device=slots.device) - len(self.widths)
        for layer, (keys, values) in self._kept.items():
            cache.write(layer, slots, self._positions[slots], keys[rows], values[rows])
