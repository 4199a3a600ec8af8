"""What the frozen LLM's hidden states say about an answer: their mean over its first tokens, at some layers.

An answer is read at several cuts, because the answers of a rollout are cut off: attention looks backwards only, so the
states of the first m tokens are those of the answer cut there, and every cut costs nothing more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.rewards.model import Conversation

_TEXTS_PER_PASS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenFeatures:
    """Which states are read. F = D * len(taps), twice that with the last token's states."""

    taps: tuple[int, ...]
    """Layers, numbered from 1; the LLM is run up to the last of them."""

    max_tokens: int = 128
    """An answer counts up to here."""

    max_prompt_tokens: int = 256
    """Of a longer prompt only the end is read."""

    with_last_token: bool = False
    """Adds the states of the answer's last token to their mean."""

    def __post_init__(self) -> None:
        if not self.taps or any(late <= early for early, late in pairwise(self.taps)) or self.taps[0] < 1:
            raise InvalidParameter("taps", self.taps, "rising layer numbers from 1")
        for name in ("max_tokens", "max_prompt_tokens"):
            if getattr(self, name) < 1:
                raise InvalidParameter(name, getattr(self, name), "at least 1")

    def read(self, llm: FrozenLLM, conversations: Sequence[Conversation], cuts: Sequence[int]) -> Iterator[Tensor]:
        """For each conversation (len(cuts), F) float32 on the CPU, in order, some at a time."""
        for start in range(0, len(conversations), _TEXTS_PER_PASS):
            some = [self._encode(llm, each) for each in conversations[start : start + _TEXTS_PER_PASS]]
            states = llm.hidden_states([prompt + answer for prompt, answer in some], self.taps)
            for (prompt, _), text in zip(some, states, strict=True):
                yield self._pool(text[len(prompt) :], cuts).cpu()

    def lengths(self, llm: FrozenLLM, conversations: Sequence[Conversation], cuts: Sequence[int]) -> Tensor:
        """(B, len(cuts)) natural logarithms of the tokens that are read at each cut."""
        lengths = torch.tensor([max(1, len(llm.tokenizer.encode(each.answer))) for each in conversations])
        return torch.minimum(lengths[:, None], torch.tensor(cuts).clamp(max=self.max_tokens)).float().log()

    def _encode(self, llm: FrozenLLM, conversation: Conversation) -> tuple[list[int], list[int]]:
        prompt = llm.tokenizer.apply_chat_template(conversation.messages)[-self.max_prompt_tokens :]
        return prompt, llm.tokenizer.encode(conversation.answer)[: self.max_tokens] or prompt[-1:]

    def _pool(self, states: Tensor, cuts: Sequence[int]) -> Tensor:
        """(T, taps, D) -> (len(cuts), F)."""
        sums = states.cumsum(dim=0)
        ends = torch.tensor([min(cut, len(states)) for cut in cuts], device=states.device)
        pooled = (sums[ends - 1] / ends[:, None, None]).flatten(1)
        return torch.cat([pooled, states[ends - 1].flatten(1)], dim=1) if self.with_last_token else pooled
