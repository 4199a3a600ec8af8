"""Several rewards as one, so that a proxy does not buy one virtue with another's loss.

A term may be for the answers to some prompts only: declining is good where harm is asked for, and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.errors import GraderFailed, InvalidParameter
from trainer.rewards.frozen_head import FrozenHead, score_alike
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


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """The weighted sum of rewards, each in its own units."""

    terms: tuple[WeightedTerm, ...]

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32."""
        return self.total(self.scores(conversations))

    def scores(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """(B,) of each term by its name, before its weight, NaN where it does not apply. Raises `GraderFailed`."""
        found: dict[str, Tensor] = {}
        for terms in _read_alike(self.terms):
            found |= _scores(terms, conversations)
        return found

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


def _read_alike(terms: Sequence[WeightedTerm]) -> list[list[WeightedTerm]]:
    """The terms by what they read: heads on the same states of the same answers have them read once."""
    found: dict[object, list[WeightedTerm]] = {}
    for term in terms:
        key = (term.model.features, term.sources) if isinstance(term.model, FrozenHead) else term.name
        found.setdefault(key, []).append(term)
    return list(found.values())


def _scores(terms: Sequence[WeightedTerm], conversations: Sequence[Conversation]) -> dict[str, Tensor]:
    """(B,) float32 of each of `terms`, which read alike, NaN where they do not apply.

    Raises `GraderFailed` for a score that is not finite.
    """
    is_scored = torch.tensor([terms[0].applies_to(each.source) for each in conversations], dtype=torch.bool)
    some = [each for each, is_one in zip(conversations, is_scored.tolist(), strict=True) if is_one]
    found = {term.name: torch.full((len(conversations),), torch.nan) for term in terms}
    for term, scores in zip(terms, _score(terms, some), strict=True) if some else ():
        if not bool(scores.isfinite().all()):
            raise GraderFailed(term.name, "it gave a score that is not finite")
        found[term.name][is_scored] = scores.float()
    return found


def _score(terms: Sequence[WeightedTerm], conversations: Sequence[Conversation]) -> list[Tensor]:
    heads = [term.model for term in terms if isinstance(term.model, FrozenHead)]
    return score_alike(heads, conversations) if heads else [term.model.score(conversations) for term in terms]
