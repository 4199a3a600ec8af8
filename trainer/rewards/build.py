"""From the terms in a run's settings to the reward that scores its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import home_folder
from store.fine_tuning.graders import (
    MultiGrader,
    RewardModelGrader,
    ScoreModelGrader,
    StringCheckGrader,
    TextSimilarityGrader,
)
from store.fine_tuning.reward_models import reward_folders
from store.fine_tuning.rule_graders import DistinctGrader, JsonGrader, KeywordsGrader, LengthGrader, RegexGrader
from trainer.rewards.classifier import ClassifierReward
from trainer.rewards.endpoint import ChatEndpoint
from trainer.rewards.ensemble import Ensemble
from trainer.rewards.load import load_reward
from trainer.rewards.model import RewardModel
from trainer.rewards.rules import DistinctRule, JsonRule, KeywordsRule, LengthRule, RegexRule
from trainer.rewards.score_model import ScoreModel
from trainer.rewards.sources import ClassifierSource, EnsembleSource, TrainedReward
from trainer.rewards.terms import RewardSource, RewardTerm
from trainer.rewards.text_graders import FormulaReward, StringCheck, TextSimilarity
from trainer.rewards.weighted import WeightedReward, WeightedTerm

RuleGrader: TypeAlias = (
    StringCheckGrader | TextSimilarityGrader | LengthGrader | DistinctGrader | KeywordsGrader | JsonGrader | RegexGrader
)


@dataclass(frozen=True, slots=True)
class RewardBuilder:
    """Makes scorers that share what is loaded once."""

    llm: FrozenLLM
    endpoint: ChatEndpoint | None = None
    """Where grading models are asked."""

    def weighted(self, terms: Sequence[RewardTerm]) -> WeightedReward:
        """Raises `BadCheckpoint`, `FingerprintMismatch`, `ModelUnavailable`, `InvalidParameter`."""
        return WeightedReward(tuple(self._weighted(term) for term in terms))

    def _weighted(self, term: RewardTerm) -> WeightedTerm:
        model = self.build(term.source)
        return WeightedTerm(name=term.name, weight=term.weight, model=model, sources=term.sources)

    def build(self, source: RewardSource) -> RewardModel:
        """The scorer of one source."""
        match source:
            case TrainedReward():
                return load_reward(source.folder, self.llm)
            case EnsembleSource():
                return Ensemble(tuple(load_reward(each, self.llm) for each in source.folders), source.pessimism)
            case ClassifierSource():
                return ClassifierReward(source.model)
            case RewardModelGrader():
                return self._named(source)
            case MultiGrader():
                return FormulaReward(source, {name: self.build(each) for name, each in source.graders.items()})
            case ScoreModelGrader():
                if self.endpoint is None:
                    raise InvalidParameter("judge", None, "given, with the url of an endpoint, for a score_model")
                return ScoreModel(source, self.endpoint)
            case _:
                return self._rule(source)

    def _named(self, source: RewardModelGrader) -> RewardModel:
        folders = reward_folders(home_folder())
        if source.model not in folders:
            raise InvalidParameter("model", source.model, f"the name of a reward model, one of {sorted(folders)}")
        return load_reward(folders[source.model], self.llm)

    def _rule(self, source: RuleGrader) -> RewardModel:
        match source:
            case StringCheckGrader():
                return StringCheck(source)
            case TextSimilarityGrader():
                return TextSimilarity(source)
            case LengthGrader():
                return LengthRule(source, self.llm.tokenizer)
            case DistinctGrader():
                return DistinctRule(source, self.llm.tokenizer)
            case KeywordsGrader():
                return KeywordsRule(source)
            case JsonGrader():
                return JsonRule(source)
            case RegexGrader():
                return RegexRule(source)
