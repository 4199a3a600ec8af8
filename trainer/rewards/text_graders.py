"""Scores of texts against texts: string_check, text_similarity, and formulas over other graders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.errors import GraderFailed
from store.fine_tuning.formula import Formula
from store.fine_tuning.graders import Metric, MultiGrader, Operation, StringCheckGrader, TextSimilarityGrader
from store.fine_tuning.template import Template
from trainer.evaluation.text_metrics import words
from trainer.rewards.model import Conversation, RewardModel

_CHECKS: Mapping[Operation, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}


@dataclass(frozen=True, slots=True)
class StringCheck:
    """Whether two texts agree."""

    grader: StringCheckGrader

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) of 0 and 1. Raises `GraderFailed` where a row lacks a field."""
        check = _CHECKS[self.grader.operation]
        return torch.tensor([float(check(*_filled(self.grader, each))) for each in conversations])


@dataclass(frozen=True, slots=True)
class TextSimilarity:
    """How alike two texts are."""

    grader: TextSimilarityGrader

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) in [0, 1]. Raises `GraderFailed` where a row lacks a field."""
        metric = similarity(self.grader.evaluation_metric)
        return torch.tensor([metric(*_filled(self.grader, each)) for each in conversations])


@dataclass(frozen=True, slots=True)
class FormulaReward:
    """A formula over other graders' scores of the same answer."""

    grader: MultiGrader
    members: Mapping[str, RewardModel]

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,). Raises `GraderFailed` where the formula has no value."""
        formula = Formula.parse(self.grader.calculate_output)
        columns = {name: model.score(conversations).tolist() for name, model in self.members.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        scores = torch.tensor([formula.value(row) for row in rows])
        if not bool(scores.isfinite().all()):
            row = rows[int((~scores.isfinite()).nonzero()[0])]
            raise GraderFailed(self.grader.name, f"{formula.text} has no value at {row}")
        return scores


def similarity(metric: Metric) -> Callable[[str, str], float]:
    """A function of (text, reference) with values in [0, 1]; words are compared in lower case but for `fuzzy_match`."""
    if metric == "fuzzy_match":
        return _fuzzy_match
    if metric == "bleu":
        return _bleu
    return _gleu if metric == "gleu" else _rouge(metric.replace("rouge_", "rouge").replace("rougel", "rougeL"))


def _fuzzy_match(text: str, reference: str) -> float:
    """1 - insertions and deletions / characters of both."""
    from rapidfuzz import fuzz

    return fuzz.ratio(text, reference) / 100


def _bleu(text: str, reference: str) -> float:
    """Up to four words in a row; a count of none is smoothed as NIST does it (Chen and Cherry, 2014, method 3)."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    found, expected = words(text), words(reference)
    if not found or not expected:
        return float(found == expected)
    orders = min(4, len(found), len(expected))
    weights = (1 / orders,) * orders
    return float(sentence_bleu([expected], found, weights, smoothing_function=SmoothingFunction().method3))


def _gleu(text: str, reference: str) -> float:
    """Google's: the lesser of precision and recall of one to four words in a row."""
    from nltk.translate.gleu_score import sentence_gleu

    found, expected = words(text), words(reference)
    return float(sentence_gleu([expected], found)) if found and expected else float(found == expected)


def _rouge(name: str) -> Callable[[str, str], float]:
    """The F-measure of `rouge1` to `rouge5` and `rougeL`, without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name])
    return lambda text, reference: float(scorer.score(reference, text)[name].fmeasure)


def _filled(grader: StringCheckGrader | TextSimilarityGrader, conversation: Conversation) -> tuple[str, str]:
    return filled(grader.name, grader.input, conversation), filled(grader.name, grader.reference, conversation)


def filled(name: str, template: str, conversation: Conversation) -> str:
    """A grader's template with the row and the answer put in. Raises `GraderFailed` where the row lacks a field."""
    try:
        return Template(template).fill(conversation.item, conversation.answer)
    except KeyError as error:
        raise GraderFailed(name, f"a prompt's item has no field {error.args[0]!r}") from error
