"""Re-ranking of the k likeliest tokens by the training reward, at every token (ARGS, arXiv:2402.01694).

The token is the one with the largest log p + weight * reward(prefix + token). The reward reads the LLM's own states, so
a candidate costs a pass up to the highest layer that the reward reads, and the chosen one a whole pass on top.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxy_model.decision.skam import top_tokens
from proxy_model.errors import InvalidParameter
from proxy_model.llm.attention import Chunk, PackedStep
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.llm.kv_cache import KVCache
from trainer.evaluation.answer import Answer
from trainer.potential import judging_heads
from trainer.rewards.model import RewardModel


class PrefixJudge:
    """The training reward of answers that are still being written."""

    def __init__(self, reward: RewardModel) -> None:
        """Raises `InvalidParameter` for a reward that cannot judge prefixes."""
        self._heads = judging_heads(reward)
        if not self._heads:
            raise InvalidParameter("reward", type(reward).__name__, "a head on the LLM's mean states for 'rerank'")
        self.taps = sorted({tap for head, _ in self._heads for tap in head.features.taps})

    def score(self, means: Tensor, num_tokens: Tensor) -> Tensor:
        """(B,) rewards of answers with mean states `means` (B, taps, D) over `num_tokens` (B,) tokens."""
        total = torch.zeros(len(means))
        for head, weight in self._heads:
            columns = [self.taps.index(tap) for tap in head.features.taps]
            read = means[:, columns].flatten(1).cpu()
            lengths = num_tokens.cpu().clamp(max=head.features.max_tokens).float().log()
            total = total + weight * head.head.score(read, lengths)
        return total


@dataclass(slots=True)
class _Writing:
    """Answers that are being written side by side, answer i in slot i."""

    cache: KVCache
    lengths: Tensor
    """(B,) tokens of prompt and answer."""

    sums: Tensor
    """(B, taps, D) of the answers' states."""

    answers: list[list[int]]
    is_done: list[bool] = field(default_factory=list)

    @property
    def counts(self) -> Tensor:
        """(B,) tokens of the answers."""
        return torch.tensor([len(answer) for answer in self.answers], device=self.sums.device)


class Reranker:
    """Greedy decoding by log p + weight * reward over the `num_candidates` likeliest tokens."""

    def __init__(self, llm: FrozenLLM, reward: RewardModel, num_candidates: int, weight: float) -> None:
        self._llm = llm
        self._judge = PrefixJudge(reward)
        self._num_candidates = num_candidates
        self._weight = weight
        self._ends = torch.tensor(sorted(llm.end_token_ids), device=llm.device)

    @property
    def passes_per_token(self) -> float:
        """A candidate's pass counts by the share of the layers that it runs through."""
        return 1 + self._num_candidates * max(self._judge.taps) / self._llm.num_layers

    @torch.no_grad()
    def answer(self, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> list[Answer]:
        """One answer a prompt."""
        started = time.perf_counter()
        writing, hidden = self._read(prompts, max_tokens)
        reading, gaps = 1000 * (time.perf_counter() - started), []
        for _ in range(max_tokens):
            before = time.perf_counter()
            hidden = self._write(writing, hidden)
            gaps.append(round(1000 * (time.perf_counter() - before), 2))
            if all(writing.is_done):
                break
        seconds = (time.perf_counter() - started) / len(prompts)
        return [self._finished(answer, seconds, reading, gaps) for answer in writing.answers]

    def _read(self, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> tuple[_Writing, Tensor]:
        """Prompts into the cache; the states (B, D) after their last tokens."""
        llm, lengths = self._llm, torch.tensor([len(prompt) for prompt in prompts])
        cache = llm.new_cache(len(prompts), int(lengths.max()) + max_tokens)
        last = []
        for slot, prompt in enumerate(prompts):
            positions = torch.arange(len(prompt), device=llm.device)
            step = PackedStep(
                tokens=torch.tensor(prompt, device=llm.device),
                positions=positions,
                slots=torch.full_like(positions, slot),
                chunks=(Chunk(0, len(prompt), slot),),
                cache=cache,
            )
            last.append(llm.advance(step)[-1])
        sums = torch.zeros(len(prompts), len(self._judge.taps), llm.hidden_size, device=llm.device)
        answers: list[list[int]] = [[] for _ in prompts]
        return _Writing(cache, lengths.to(llm.device), sums, answers, [False] * len(prompts)), torch.stack(last)

    def _write(self, writing: _Writing, hidden: Tensor) -> Tensor:
        """One more token of every answer that goes on; the states after it."""
        logprobs = self._llm.logits(hidden).log_softmax(-1)
        tokens = top_tokens(logprobs, self._num_candidates)  # (B, K)
        states = [self._llm.tapped(_step(writing, column), self._judge.taps) for column in tokens.unbind(1)]
        rewards = torch.stack(
            [self._reward(writing, *each) for each in zip(tokens.unbind(1), states, strict=True)], dim=1
        )
        best = (logprobs.gather(1, tokens).cpu() + self._weight * rewards).argmax(dim=1)
        chosen = tokens.gather(1, best.to(tokens.device)[:, None])[:, 0]
        hidden = self._llm.advance(_step(writing, chosen))
        is_going_on = torch.tensor([not done for done in writing.is_done], device=tokens.device)
        read = torch.stack(states, dim=1)[torch.arange(len(best)), best]  # (B, taps, D)
        writing.sums += read * is_going_on[:, None, None]
        for row, token in enumerate(chosen.tolist()):
            if not writing.is_done[row]:
                writing.answers[row].append(token)
                writing.is_done[row] = token in self._llm.end_token_ids
        writing.lengths += is_going_on
        return hidden

    def _reward(self, writing: _Writing, tokens: Tensor, states: Tensor) -> Tensor:
        """(B,) of each answer with one more token; an end token adds no text, so it leaves the reward as it is."""
        counts = writing.counts
        adds = ~torch.isin(tokens, self._ends) | (counts == 0)
        num_tokens = counts + adds
        means = (writing.sums + states * adds[:, None, None]) / num_tokens[:, None, None]
        return self._judge.score(means, num_tokens)

    def _finished(self, token_ids: list[int], seconds: float, reading: float, gaps: Sequence[float]) -> Answer:
        """`reading` is of all prompts, in milliseconds."""
        is_ended = token_ids[-1] in self._llm.end_token_ids
        return Answer(
            text=self._llm.tokenizer.decode(token_ids[:-1] if is_ended else token_ids),
            token_ids=tuple(token_ids),
            finish_reason="stop" if is_ended else "length",
            rejected=0,
            forced=0,
            passes=self.passes_per_token * len(token_ids),
            seconds=seconds,
            gaps=tuple(gaps[1 : len(token_ids)]),
            first_token=round(reading + gaps[0], 2),
        )


def _step(writing: _Writing, tokens: Tensor) -> PackedStep:
    """One token of each answer, at its next place; what an earlier candidate left there is overwritten."""
    return PackedStep(
        tokens=tokens,
        positions=writing.lengths,
        slots=torch.arange(len(tokens), device=tokens.device),
        lengths=tuple((writing.lengths + 1).tolist()),
        cache=writing.cache,
    )
