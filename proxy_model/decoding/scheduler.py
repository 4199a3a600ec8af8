"""Who runs in the next step: decoding sequences in slots 0, 1, 2 ..., prompts on their way in behind them.

Decoding slots stay contiguous, so a step reads the cache without gathering it: a prompt is read in a staging slot and
its keys and values move behind the decoding ones when it is through; a sequence that ends is replaced by the last one.

A prompt is cut into blocks of `block_tokens` from its beginning, whatever else is in the step: its states are then
the same, and so are those of another prompt that begins with the same blocks (`PrefixCache`).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.decoding.prefix_cache import PrefixCache
from proxy_model.decoding.sequence import Sequence
from proxy_model.llm.attention import Chunk, PackedStep
from proxy_model.llm.branches import Branches
from proxy_model.llm.kv_cache import KVCache
from proxy_model.transfer import to_device


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that may follow a decoding sequence's newest one; the step reads them behind it."""

    sequence: Sequence
    tokens: list[int]
    chunk: Chunk

    def is_right(self, depth: int) -> bool:
        """Whether the sequence's newest token is the one drafted at `depth`."""
        return depth < len(self.tokens) and self.sequence.output[-1] == self.tokens[depth]


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: its tokens, and the sequences whose next token it decides."""

    step: PackedStep
    decoding: tuple[Sequence, ...]
    chunks: tuple[tuple[Sequence, Chunk], ...]
    """Blocks of prompts, in order."""

    drafts: tuple[Draft, ...]
    """In the order of their rows, which follow one another."""

    restored: tuple[tuple[Sequence, Tensor], ...]
    """Prompts of which nothing is left to read, and h (D,) after their last tokens."""


class Scheduler:
    """First come, first served; at most `max_running` at once, at most `prefill_tokens` prompt tokens a step."""

    def __init__(
        self,
        cache: KVCache,
        prefixes: PrefixCache,
        *,
        max_running: int,
        num_staging: int,
        prefill_tokens: int,
        candidates_per_pass: int,
        candidate_rows: int,
        draft_tokens: int,
        draft_rows: int,
    ) -> None:
        self._cache = cache
        self._prefixes = prefixes
        self._max_running = max_running
        self._prefill_tokens = prefill_tokens
        self._candidates_per_pass = candidates_per_pass
        self._candidate_rows = candidate_rows
        self._draft_tokens = draft_tokens
        self._draft_rows = draft_rows
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
        sequence.block_names = self._prefixes.names(sequence.request)
        self.waiting.append(sequence)

    def plan(self, device: torch.device) -> Plan:
        """Admit what fits and lay out the next step. Every running sequence that decodes takes part."""
        self._admit()
        restored = self._restore()
        candidates = self._candidates()
        tokens = [sequence.next_token for sequence in self.decoding]
        positions = [sequence.position for sequence in self.decoding]
        slots = list(range(len(self.decoding)))
        lengths = tuple(position + 1 for position in positions)
        for sequence, upcoming in zip(self.decoding, candidates, strict=True):
            tokens += upcoming[1:]
            positions += [sequence.position] * len(upcoming[1:])
            slots += [sequence.slot] * len(upcoming[1:])
        drafts = self._drafts(len(tokens))
        tokens += [token for draft in drafts for token in draft.tokens]
        chunks = self._chunks(len(tokens))
        for sequence, chunk in chunks:
            tokens += sequence.request.prompt_token_ids[chunk.offset : chunk.offset + chunk.num_rows]
        runs = (*(draft.chunk for draft in drafts), *(chunk for _, chunk in chunks))
        for run in runs:
            positions += range(run.offset, run.offset + run.num_rows)
            slots += [run.slot] * run.num_rows
        packed = to_device(torch.tensor([tokens, positions, slots], dtype=torch.long), device)
        step = PackedStep(
            tokens=packed[0],
            positions=packed[1],
            slots=packed[2],
            lengths=lengths,
            chunks=runs,
            cache=self._cache,
            branches=Branches(list(map(len, candidates)), lengths, device) if any(candidates) else None,
        )
        return Plan(step, tuple(self.decoding), tuple(chunks), tuple(drafts), tuple(restored))

    def advance_prefill(self, plan: Plan, hidden: Tensor) -> list[tuple[Sequence, Tensor]]:
        """Note the prompt tokens of `plan`, whose pass gave `hidden` (N, D), as cached.

        Prompts that are through start to decode; returns them and h (D,) after their last tokens.
        """
        through = list(plan.restored)
        for sequence, chunk in plan.chunks:
            state = hidden[chunk.end - 1]
            if sequence.block_names:
                name = sequence.block_names[chunk.offset // self._prefixes.block_tokens]
                self._prefixes.keep(name, state, self._cache, chunk.slot, chunk.offset, chunk.num_rows)
            sequence.num_cached += chunk.num_rows
            if sequence.num_cached == sequence.num_prompt:
                through.append((sequence, state))
        for sequence, _ in through:
            self._begin_to_decode(sequence)
        return through

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

    def _candidates(self) -> list[list[int]]:
        """Those that each decoding sequence reads in this step, at least one; none where its token is settled."""
        walking = [sequence for sequence in self.decoding if sequence.pending is not None]
        spare = max(0, self._candidate_rows - len(walking))
        limit = min(self._candidates_per_pass, 1 + spare // max(1, sum(each.rejects_often for each in walking)))
        return [
            [] if each.pending is None else each.pending.upcoming(limit if each.rejects_often else 1)
            for each in self.decoding
        ]

    def _drafts(self, start: int) -> list[Draft]:
        """What the decoding sequences draft, from row `start` on: each its share of the rows that are left."""
        drafts: list[Draft] = []
        for number, sequence in enumerate(self.decoding):
            if start >= self._draft_rows:
                break
            share = -(-(self._draft_rows - start) // (len(self.decoding) - number))
            tokens = sequence.draft(min(self._draft_tokens, share))
            if tokens:
                drafts.append(Draft(sequence, tokens, Chunk(start, len(tokens), sequence.slot, sequence.length)))
                start += len(tokens)
        return drafts

    def _begin_to_decode(self, sequence: Sequence) -> None:
        self.prefilling.remove(sequence)
        self._cache.move(sequence.slot, len(self.decoding), sequence.num_cached)
        self._free_staging.append(sequence.slot)
        sequence.slot = len(self.decoding)
        if self._draft_tokens:
            sequence.prepare_drafts()
        self.decoding.append(sequence)

    def _restore(self) -> list[tuple[Sequence, Tensor]]:
        """Copy what is kept of the prompts' next blocks; those that are complete by that."""
        complete = []
        for sequence in self.prefilling:
            start = sequence.num_cached
            blocks = self._prefixes.find(sequence.block_names[start // self._prefixes.block_tokens :])
            if not blocks:
                continue
            sequence.num_cached = min(start + len(blocks) * self._prefixes.block_tokens, sequence.num_prompt)
            num_copied = sequence.num_cached - start
            self._prefixes.restore(blocks, self._cache, sequence.slot, start, num_copied)
            sequence.num_restored += num_copied
            if sequence.num_cached == sequence.num_prompt:
                complete.append((sequence, blocks[-1].state))
        return complete

    def _chunks(self, start: int) -> list[tuple[Sequence, Chunk]]:
        """The next blocks of the prompts on their way in, oldest first, within the step's budget, from row `start` on.

        A block that an older prompt reads in this step is not read twice: the younger one can copy it in the next.
        """
        chunks: list[tuple[Sequence, Chunk]] = []
        begun: set[bytes] = set()
        end = start + self._prefill_tokens
        for sequence in self.prefilling:
            for offset, num_rows, name in self._unread(sequence):
                if name in begun:
                    break
                if chunks and start + num_rows > end:
                    return chunks
                if name is not None:
                    begun.add(name)
                chunks.append((sequence, Chunk(start, num_rows, sequence.slot, offset)))
                start += num_rows
        return chunks

    def _unread(self, sequence: Sequence) -> Iterator[tuple[int, int, bytes | None]]:
        """Offset, length and name of the prompt's blocks that are not in the cache."""
        size = self._prefixes.block_tokens
        for offset in range(sequence.num_cached, sequence.num_prompt, size):
            name = sequence.block_names[offset // size] if sequence.block_names else None
            yield offset, min(size, sequence.num_prompt - offset), name
