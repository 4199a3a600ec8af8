"""How often an answer holds each token, kept as it grows: what penalties are computed from."""

from collections.abc import Sequence

import torch
from torch import Tensor


class TokenCounts:
    """Distinct tokens in the order of their first occurrence, on the host."""

    def __init__(self, prompt_token_ids: Sequence[int], max_tokens: int) -> None:
        self._places = {token: place for place, token in enumerate(dict.fromkeys(prompt_token_ids))}
        capacity = len(self._places) + max_tokens
        self._tokens = torch.zeros(capacity, dtype=torch.long)
        self._counts = torch.zeros(capacity)
        self._tokens[: len(self._places)] = torch.tensor(list(self._places), dtype=torch.long)

    def add(self, token: int) -> None:
        """One more token of the answer."""
        place = self._places.setdefault(token, len(self._places))
        self._tokens[place] = token
        self._counts[place] += 1

    def __len__(self) -> int:
        return len(self._places)

    @property
    def tokens(self) -> Tensor:
        """(N,) token ids of prompt and answer."""
        return self._tokens[: len(self._places)]

    @property
    def counts(self) -> Tensor:
        """(N,) float32, how often each stands in the answer; 0 where only the prompt has it."""
        return self._counts[: len(self._places)]
