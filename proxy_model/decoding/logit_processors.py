"""What requests ask to be done to the LLM's logits before SKAM lays out the slate.

    bias -> repetition penalty -> frequency and presence penalty -> grammar -> minimum length -> min_p and top_k

(the order of transformers and vLLM.) The proxy then chooses among what is left, and SKAM takes its probabilities from
it; reported log-probabilities are those of the logits that came in. Each row is processed as if it were alone. Numbers
go to the device and none comes back, so that a step has no synchronisation here.
"""

import math
from collections.abc import Sequence as Rows

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from proxy_model.decoding.decode import skam_temperature
from proxy_model.decoding.grammar_compiler import GrammarCompiler
from proxy_model.decoding.sequence import Sequence
from proxy_model.transfer import to_device

_NEVER = float("-inf")


class LogitProcessors:
    """Biases, penalties, filters and grammars of one engine's rows."""

    def __init__(self, end_token_ids: frozenset[int], grammars: GrammarCompiler) -> None:
        self._end_token_ids = end_token_ids
        self._grammars = grammars

    def offered(self, logits: Float[Tensor, "B V"], rows: Rows[Sequence]) -> Float[Tensor, "B V"]:
        """The logits that the slate is laid out from: `logits` itself, unchanged, where no row asks for anything."""
        asking = [row for row, sequence in enumerate(rows) if sequence.has_processors]
        if not asking:
            return logits
        index = to_device(torch.tensor(asking), logits.device)
        processed, members = logits[index], [rows[row] for row in asking]
        _add_biases(processed, members)
        _penalise(processed, members)
        self._keep_to_grammars(processed, members)
        self._forbid_early_end(processed, members)
        _cut(processed, members)
        return processed if len(asking) == len(rows) else logits.index_copy(0, index, processed)

    def _keep_to_grammars(self, logits: Float[Tensor, "B V"], rows: Rows[Sequence]) -> None:
        members = [(row, sequence.grammar) for row, sequence in enumerate(rows) if sequence.grammar is not None]
        if members:
            bits = self._grammars.allowed([state for _, state in members])
            is_allowed = unpacked(to_device(bits, logits.device), logits.shape[-1])
            index = to_device(torch.tensor([row for row, _ in members]), logits.device)
            logits[index] = logits[index].masked_fill(~is_allowed, _NEVER)

    def _forbid_early_end(self, logits: Float[Tensor, "B V"], rows: Rows[Sequence]) -> None:
        """No end before `min_tokens`, unless the grammar leaves nothing else."""
        members = [(row, sequence) for row, sequence in enumerate(rows) if sequence.is_below_min_tokens]
        if members:
            index = to_device(torch.tensor([row for row, _ in members]), logits.device)
            going_on = logits[index]
            ends = [(place, self._ends(sequence)) for place, (_, sequence) in enumerate(members)]
            going_on.view(-1)[_places(ends, logits)] = _NEVER
            can_go_on = going_on.amax(-1, keepdim=True) > _NEVER
            logits[index] = torch.where(can_go_on, going_on, logits[index])

    def _ends(self, sequence: Sequence) -> Tensor:
        return torch.tensor([*self._end_token_ids, *sequence.request.params.stop_token_ids], dtype=torch.long)


def unpacked(bits: Int[Tensor, "B W"], size: int) -> Bool[Tensor, "B V"]:
    """The first `size` bits of each row, the lowest bit of a word first."""
    shifts = torch.arange(32, dtype=torch.int32, device=bits.device)
    return ((bits[:, :, None] >> shifts) & 1).flatten(1)[:, :size].bool()


def _add_biases(logits: Float[Tensor, "B V"], rows: Rows[Sequence]) -> None:
    pairs = [(row, pair) for row, sequence in enumerate(rows) for pair in sequence.request.params.logit_bias]
    if pairs:
        places = _places([(row, torch.tensor([token])) for row, (token, _) in pairs], logits)
        values = torch.tensor([bias for _, (_, bias) in pairs])
        logits.view(-1).index_add_(0, places, to_device(values, logits.device))


def _penalise(logits: Float[Tensor, "B V"], rows: Rows[Sequence]) -> None:
    """Repetition first (arXiv:1909.05858), then mu - count * frequency - (count > 0) * presence (OpenAI)."""
    members = [(row, counts) for row, sequence in enumerate(rows) if (counts := sequence.counts) is not None]
    if not members:
        return
    settings = torch.cat([_penalties(rows[row]).expand(len(counts), -1) for row, counts in members])  # (N, 3)
    counted = torch.cat([counts.counts for _, counts in members])[:, None]
    columns = to_device(torch.cat([settings, counted], dim=1), logits.device)
    repetition, frequency, presence, count = columns.unbind(1)
    places = _places([(row, counts.tokens) for row, counts in members], logits)
    found = logits.view(-1)[places]
    found = torch.where(found > 0, found / repetition, found * repetition)
    logits.view(-1)[places] = found - count * frequency - (count > 0) * presence


def _penalties(sequence: Sequence) -> Float[Tensor, " 3"]:
    params = sequence.request.params
    return torch.tensor([params.repetition_penalty, params.frequency_penalty, params.presence_penalty])


def _cut(logits: Float[Tensor, "B V"], rows: Rows[Sequence]) -> None:
    """Leave the k likeliest tokens, and those with a share of the likeliest one's probability."""
    size = logits.shape[-1]
    limits = [(row, k) for row, sequence in enumerate(rows) if (k := sequence.request.params.top_k or size) < size]
    if limits:
        index, last = to_device(torch.tensor(limits), logits.device).unbind(1)
        best = logits[index].topk(max(k for _, k in limits), dim=-1).values
        _mask_below(logits, index, best.gather(1, last[:, None] - 1))
    gaps = [(row, _min_p_gap(sequence)) for row, sequence in enumerate(rows) if sequence.request.params.min_p > 0]
    if gaps:
        index = to_device(torch.tensor([row for row, _ in gaps]), logits.device)
        gap = to_device(torch.tensor([gap for _, gap in gaps]), logits.device)
        _mask_below(logits, index, logits[index].amax(-1, keepdim=True) - gap[:, None])


def _min_p_gap(sequence: Sequence) -> float:
    """How far a logit may lie under the largest: p_i >= min_p * p_max at the temperature the row is offered at."""
    params = sequence.request.params
    return -math.log(params.min_p) * (params.temperature or skam_temperature(sequence))


def _mask_below(logits: Float[Tensor, "B V"], index: Int[Tensor, " R"], floor: Float[Tensor, "R 1"]) -> None:
    chosen = logits[index]
    logits[index] = chosen.masked_fill(chosen < floor, _NEVER)


def _places(tokens: Rows[tuple[int, Tensor]], logits: Float[Tensor, "B V"]) -> Int[Tensor, " N"]:
    """Where (row, its token ids) stand in the flattened logits."""
    return to_device(torch.cat([ids + row * logits.shape[-1] for row, ids in tokens]), logits.device)
