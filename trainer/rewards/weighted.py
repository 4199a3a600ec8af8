"""Several rewards as one, so that a proxy does not buy one virtue with another's loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.errors import GraderFailed
from trainer.rewards.model import Conversation, RewardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedTerm:
    """One reward in a sum."""

    name: str
    weight: float
    model: RewardModel


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """The weighted sum of rewards, each in its own units."""

    terms: tuple[WeightedTerm, ...]

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32."""
        return self.total(self.scores(conversations))

    def scores(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """(B,) of each term by its name, before its weight. Raises `GraderFailed` for a score that is not finite."""
        found = {term.name: term.model.score(conversations) for term in self.terms}
        for name, scores in found.items():
            if not bool(scores.isfinite().all()):
                raise GraderFailed(name, "it gave a score that is not finite")
        return found

    def total(self, scores: Mapping[str, Tensor]) -> Tensor:
        """(B,) the weighted sum of what `scores` returned."""
        return torch.stack([term.weight * scores[term.name] for term in self.terms]).sum(0)
