"""Who runs in the next step: decoding sequences in slots 0, 1, 2 ..., prompts on their way in behind them.

Decoding slots stay contiguous, so a step reads the cache without gathering it: a prompt is read in a staging slot and
its keys and values move behind the decoding ones when it is through; a sequence that ends is replaced by the last one.
"""

from collections import deque
from dataclasses import dataclass

import torch

from proxy_model.attention import Chunk, PackedStep
from proxy_model.kv_cache import KVCache
from proxy_model.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: its tokens, and the sequences whose next token it decides."""

    step: PackedStep
    decoding: tuple[Sequence, ...]
    chunks: tuple[tuple[Sequence, Chunk], ...]


class Scheduler:
    """First come, first served; at most `max_running` at once, at most `prefill_tokens` prompt tokens a step."""

    def __init__(self, cache: KVCache, max_running: int, num_staging: int, prefill_tokens: int) -> None:
        self._cache = cache
        self._max_running = max_running
        self._prefill_tokens = prefill_tokens
        self._free_staging = [max_running + index for index in reversed(range(num_staging))]
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []

    @property
    def num_running(self) -> int:
        """Sequences that hold a slot."""
        return len(self.prefilling) + len(self.decoding)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def plan(self, device: torch.device) -> Plan:
        """Admit what fits and lay out the next step. Every running sequence that decodes takes part."""
        self._admit()
        chunks = self._chunks()
        tokens = [sequence.next_token for sequence in self.decoding]
        positions = [sequence.position for sequence in self.decoding]
        slots = list(range(len(self.decoding)))
        max_length = 1 + max(positions, default=-1)
        for sequence, chunk in chunks:
            tokens += sequence.request.prompt_token_ids[chunk.offset : chunk.offset + chunk.num_rows]
            positions += range(chunk.offset, chunk.offset + chunk.num_rows)
            slots += [chunk.slot] * chunk.num_rows
        packed = torch.tensor([tokens, positions, slots]).to(device, non_blocking=True)
        step = PackedStep(
            tokens=packed[0],
            positions=packed[1],
            slots=packed[2],
            num_decode=len(self.decoding),
            max_length=max_length,
            chunks=tuple(chunk for _, chunk in chunks),
            cache=self._cache,
        )
        return Plan(step, tuple(self.decoding), tuple(chunks))

    def advance_prefill(self, plan: Plan) -> None:
        """Note the prompt tokens of `plan` as cached; prompts that are through start to decode."""
        for sequence, chunk in plan.chunks:
            sequence.num_cached += chunk.num_rows
            if sequence.num_cached == sequence.num_prompt:
                self.prefilling.remove(sequence)
                self._cache.move(sequence.slot, len(self.decoding), sequence.num_cached)
                self._free_staging.append(sequence.slot)
                sequence.slot = len(self.decoding)
                self.decoding.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Free the slot of a sequence that has ended, wherever it is."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.prefilling:
            self.prefilling.remove(sequence)
            self._free_staging.append(sequence.slot)
        elif sequence in self.decoding:
            last = self.decoding.pop()
            if last is not sequence:
                self._cache.move(last.slot, sequence.slot, last.length)
                last.slot = sequence.slot
                self.decoding[sequence.slot] = last

    def _admit(self) -> None:
        while self.waiting and self._free_staging and self.num_running < self._max_running:
            sequence = self.waiting.popleft()
            sequence.slot = self._free_staging.pop()
            self.prefilling.append(sequence)

    def _chunks(self) -> list[tuple[Sequence, Chunk]]:
        """The next tokens of the prompts on their way in, oldest first, within the step's budget.

        A prompt is always cut at the same places, whatever else is in the step: its states are then the same.
        """
        chunks: list[tuple[Sequence, Chunk]] = []
        start = len(self.decoding)
        for sequence in self.prefilling:
            num_rows = min(self._prefill_tokens, sequence.num_prompt - sequence.num_cached)
            if chunks and start + num_rows > len(self.decoding) + self._prefill_tokens:
                break
            chunks.append((sequence, Chunk(start, num_rows, sequence.slot, sequence.num_cached)))
            start += num_rows
        return chunks
