"""Several rewards as one, so that a proxy does not buy one virtue with another's loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.rewards.model import Conversation, RewardModel


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """The weighted sum of rewards, each in deviations of its own training answers' scores."""

    parts: tuple[tuple[RewardModel, float], ...]

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32."""
        scores = [weight * model.score(conversations) for model, weight in self.parts]
        return torch.stack(scores).sum(0)
