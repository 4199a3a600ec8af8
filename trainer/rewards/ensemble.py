"""Several reward models that must agree: their mean, less a multiple of their disagreement."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.rewards.model import Conversation, RewardModel


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A lower confidence bound: what only one member likes is worth less, which over-optimisation would exploit."""

    members: tuple[RewardModel, ...]
    pessimism: float

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) mean - pessimism * standard deviation over the members."""
        scores = torch.stack([member.score(conversations) for member in self.members])  # (members, B)
        return scores.mean(dim=0) - self.pessimism * scores.std(dim=0, correction=0)
