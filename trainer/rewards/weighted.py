"""Several rewards as one, so that a proxy does not buy one virtue with another's loss.

A term may be for the answers to some prompts only: declining is good where harm is asked for, and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.errors import GraderFailed, InvalidParameter
from trainer.rewards.model import Conversation, RewardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedTerm:
    """One reward in a sum."""

    name: str
    weight: float
    model: RewardModel
    sources: tuple[str, ...] = ()
    """How the sources of the prompts begin whose answers it scores; empty: it scores all."""

    def applies_to(self, source: str) -> bool:
        """Whether it scores answers to prompts of `source`."""
        return not self.sources or source.startswith(self.sources)

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32, NaN where it does not apply. Raises `GraderFailed` for a score that is not finite."""
        is_scored = torch.tensor([self.applies_to(each.source) for each in conversations], dtype=torch.bool)
        found = torch.full((len(conversations),), torch.nan)
        some = [each for each, is_one in zip(conversations, is_scored.tolist(), strict=True) if is_one]
        if some:
            scores = self.model.score(some).float()
            if not bool(scores.isfinite().all()):
                raise GraderFailed(self.name, "it gave a score that is not finite")
            found[is_scored] = scores
        return found


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """The weighted sum of rewards, each in its own units."""

    terms: tuple[WeightedTerm, ...]

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32."""
        return self.total(self.scores(conversations))

    def scores(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """(B,) of each term by its name, before its weight, NaN where it does not apply. Raises `GraderFailed`."""
        return {term.name: term.score(conversations) for term in self.terms}

    def total(self, scores: Mapping[str, Tensor]) -> Tensor:
        """(B,) the weighted sum of what `scores` returned, of the terms that apply."""
        return torch.stack([term.weight * scores[term.name].nan_to_num(nan=0.0) for term in self.terms]).sum(0)

    def check(self, sources: Iterable[str]) -> None:
        """Raises `InvalidParameter` where a prompt of these `sources` has no term."""
        for source in sorted(set(sources)):
            if not any(term.applies_to(source) for term in self.terms):
                raise InvalidParameter("rewards", source, f"a reward for prompts of source {source!r}, too")

    def check_used(self, sources: Iterable[str]) -> None:
        """Raises `InvalidParameter` where a term has no prompt among these `sources`."""
        found = sorted(set(sources))
        for index, term in enumerate(self.terms):
            if not any(map(term.applies_to, found)):
                allowed = f"how a source of the prompts begins, which are {found}"
                raise InvalidParameter(f"rewards[{index}].sources", list(term.sources), allowed)
