"""Scores by rule: length, repetition, keywords, JSON validity and regular expressions, without any model."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import regex
import torch
from torch import Tensor

from proxy_model.errors import GraderFailed
from proxy_model.llm.tokenizer import ChatTokenizer
from store.fine_tuning.json_schema import compile_schema
from store.fine_tuning.rule_graders import DistinctGrader, JsonGrader, KeywordsGrader, LengthGrader, RegexGrader
from trainer.evaluation.text_metrics import repetition
from trainer.rewards.model import Conversation

_MATCH_SECONDS = 2.0
"""A pattern that takes longer on one answer is refused: some take for ever."""


@dataclass(frozen=True, slots=True)
class LengthRule:
    """How long the answer is, in the frozen LLM's tokens."""

    grader: LengthGrader
    tokenizer: ChatTokenizer

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) in [0, 1], or tokens times `per_token`."""
        return torch.tensor([self._of(len(self.tokenizer.encode(each.answer))) for each in conversations]).float()

    def _of(self, num_tokens: int) -> float:
        rule = self.grader
        if rule.target is not None:
            return max(0.0, 1 - abs(num_tokens - rule.target) / rule.target)
        if rule.upper_bound is not None:
            return min(1.0, max(0.0, 2 - num_tokens / rule.upper_bound))
        assert rule.per_token is not None
        return num_tokens * rule.per_token


@dataclass(frozen=True, slots=True)
class DistinctRule:
    """How little the answer repeats itself, in the frozen LLM's tokens."""

    grader: DistinctGrader
    tokenizer: ChatTokenizer

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) in [0, 1]."""
        texts = [self.tokenizer.encode(each.answer) for each in conversations]
        return torch.tensor([1 - repetition(text, self.grader.n) for text in texts])


@dataclass(frozen=True, slots=True)
class KeywordsRule:
    """Which words an answer has, as whole words and whatever the case."""

    grader: KeywordsGrader

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) in [-1, 1]."""
        wanted, forbidden = _patterns(self.grader.wanted), _patterns(self.grader.forbidden)
        return torch.tensor([_share(wanted, each.answer) - _share(forbidden, each.answer) for each in conversations])


class JsonRule:
    """Whether an answer is JSON, and follows a schema."""

    def __init__(self, grader: JsonGrader) -> None:
        self._validator = compile_schema(grader.schema)

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) of 0 and 1."""
        return torch.tensor([float(self._is_valid(each.answer)) for each in conversations])

    def _is_valid(self, answer: str) -> bool:
        try:
            return bool(self._validator.is_valid(json.loads(answer, parse_constant=_refuse)))
        except (ValueError, RecursionError):
            return False


@dataclass(frozen=True, slots=True)
class RegexRule:
    """Whether a pattern is found in the answer."""

    grader: RegexGrader

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) of 0 and 1. Raises `GraderFailed` for a pattern that takes too long."""
        return torch.tensor([float(self._is_found(each.answer)) for each in conversations])

    def _is_found(self, answer: str) -> bool:
        try:
            return regex.search(self.grader.pattern, answer, timeout=_MATCH_SECONDS) is not None
        except TimeoutError as error:
            raise GraderFailed(self.grader.name, f"its pattern takes more than {_MATCH_SECONDS:g} s") from error


def _patterns(words: Sequence[str]) -> list[re.Pattern[str]]:
    return [re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)", re.IGNORECASE) for word in words]


def _share(patterns: Sequence[re.Pattern[str]], answer: str) -> float:
    return sum(pattern.search(answer) is not None for pattern in patterns) / max(1, len(patterns))


def _refuse(what: str) -> Any:
    """No `NaN` in an answer. Raises `ValueError`."""
    raise ValueError(f"{what} is not allowed")
