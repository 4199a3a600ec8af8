"""Kinds of prompts: two are of one kind if the same terms of the reward score the answers to them.

Where every term is for every prompt there is one kind. With several, each iteration has as many prompts of every kind,
and each kind's scores are standardised by themselves: rewards in other units weigh alike, and what the prompts of one
kind are worth on average is no merit of the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainer.advantages import RunningMoments, normalise
from trainer.rewards.weighted import WeightedReward
from trainer.rollout import EncodedPrompt


def with_kinds(prompts: Sequence[EncodedPrompt], reward: WeightedReward) -> list[EncodedPrompt]:
    """The prompts with their kinds, counted from 0 in the order of the terms.

    Raises `InvalidParameter` for a prompt without a term and for a term without a prompt.
    """
    sources = {each.source for each in prompts}
    reward.check(sources)
    reward.check_used(sources)
    patterns = {source: tuple(not term.applies_to(source) for term in reward.terms) for source in sources}
    numbers = {pattern: number for number, pattern in enumerate(sorted(set(patterns.values())))}
    return [replace(each, kind=numbers[patterns[each.source]]) for each in prompts]


def members_of(kinds: Tensor) -> list[Tensor]:
    """For each kind that there is in `kinds` (B,), ascending, where it stands."""
    return [(kinds == kind).nonzero().squeeze(1) for kind in kinds.unique()]


def dealt_within(scores: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) each answer with the score of a random one of its kind."""
    dealt = scores.clone()
    for members in members_of(kinds):
        order = torch.randperm(members.numel(), generator=generator)
        dealt[members] = scores[members[order]]
    return dealt


@dataclass(frozen=True, slots=True)
class KindMoments:
    """Running moments of the scores of each kind; a kind that has not been seen has those of nothing."""

    of_kinds: tuple[RunningMoments, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "KindMoments":
        """The inverse of `asdict`; moments from before there were kinds are those of one."""
        of_kinds = values.get("of_kinds", [values])
        return cls(tuple(RunningMoments(**each) for each in of_kinds))

    def of_kind(self, kind: int) -> RunningMoments:
        return self.of_kinds[kind] if kind < len(self.of_kinds) else RunningMoments()

    def updated(self, scores: Tensor, kinds: Tensor) -> "KindMoments":
        """With a batch of `scores` (B,) added to the moments of their `kinds` (B,)."""
        found = [self.of_kind(kind) for kind in range(max(len(self.of_kinds), int(kinds.max()) + 1))]
        for members in members_of(kinds):
            kind = int(kinds[members[0]])
            found[kind] = found[kind].updated(scores[members])
        return KindMoments(tuple(found))

    def normalised(self, scores: Tensor, kinds: Tensor, clip: float) -> Tensor:
        """(B,) `scores` in running deviations from the running mean of their kind, bounded by `clip`."""
        found = torch.empty_like(scores)
        for members in members_of(kinds):
            found[members] = normalise(scores[members], self.of_kind(int(kinds[members[0]])), clip)
        return found

    def deviations(self, kinds: Tensor) -> list[float]:
        """(B,) the standard deviation of each answer's kind."""
        return [self.of_kind(kind).deviation for kind in kinds.tolist()]
