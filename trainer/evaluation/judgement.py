"""From answers to the numbers of a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.evaluation.answer import Answers
from trainer.evaluation.answering import AnsweredRow
from trainer.evaluation.refusal import is_refusal
from trainer.evaluation.rows import ScoreRow, SystemRow
from trainer.evaluation.scoring import Scoring
from trainer.evaluation.statistics import Interval, bootstrap, deviation, outcomes, wilson_interval, win_rate
from trainer.evaluation.text_metrics import Dictionary, distinct, repetition, without_broken_end


@dataclass(frozen=True, slots=True)
class Judgement:
    """What answers are held against."""

    scoring: Scoring
    known_texts: Sequence[str]
    """Texts whose words count as words."""

    seed: int

    def rows(self, answered: Sequence[AnsweredRow]) -> tuple[SystemRow, ...]:
        """One row each; the first is the base that the others are compared with."""
        base = answered[0].members[0]
        dictionary = Dictionary.of(self.known_texts, readable_texts(base))
        return tuple(self._row(row, base, dictionary) for row in answered)

    def _row(self, row: AnsweredRow, base: Answers, dictionary: Dictionary) -> SystemRow:
        members = [self._numbers(answers, base, dictionary) for answers in row.members]
        first = row.members[0].facts
        facts = [answers.facts for answers in row.members]
        return SystemRow(
            system=row.label,
            kind=first.kind,
            scores={label: self._compare(label, row, base) for label in self.scoring.scorers},
            **{name: mean_over_seeds(each[name] for each in members) for name in members[0]},
            origins=tuple(each.origin for each in facts if each.origin is not None),
            policies=tuple(each.policy for each in facts if each.policy is not None),
            p_t=first.p_t,
            temperature=first.temperature,
            top_p=first.top_p,
            decision=first.decision,
            target_return=first.target_return,
            answers=tuple(answers.key for answers in row.members),
            refusals=self._refusals(row),
            spread=_spread(members),
        )

    def _refusals(self, row: AnsweredRow) -> dict[str, Interval]:
        """Shares of answers that decline, by their prompts' source."""
        table = torch.tensor([[is_refusal(each.text) for each in answers.items] for answers in row.members]).double()
        sources = [prompt.source for prompt in self.scoring.prompts]
        found = {}
        for source in sorted(set(sources)):
            mine = table[:, [number for number, each in enumerate(sources) if each == source]]
            is_alone = len(mine) == 1
            found[source] = wilson_interval(float(mine.sum()), mine.numel()) if is_alone else bootstrap(mine, self.seed)
        return found

    def _compare(self, label: str, row: AnsweredRow, base: Answers) -> ScoreRow:
        scores = torch.stack([self.scoring.scores(label, answers) for answers in row.members])
        return compare(scores, self.scoring.scores(label, base), self.seed)

    def _numbers(self, answers: Answers, base: Answers, dictionary: Dictionary) -> dict[str, float | None]:
        """The fields of a `SystemRow` that are numbers, of one member."""
        items, num_tokens = answers.items, answers.num_tokens
        gaps = torch.tensor([gap for each in items for gap in each.gaps])
        first = torch.tensor([each.first_token for each in items if each.first_token is not None])
        return {
            "nll": self.scoring.nll(answers),
            "length": num_tokens / len(items),
            "rep_4": sum(repetition(each.token_ids, 4) for each in items) / len(items),
            "distinct_1": distinct((each.token_ids for each in items), 1),
            "distinct_2": distinct((each.token_ids for each in items), 2),
            "eos_rate": sum(each.finish_reason == "stop" for each in items) / len(items),
            "garble_rate": dictionary.garble_rate(readable_texts(answers)),
            "changed_rate": changed_rate(answers, base),
            "accept_rate": answers.accept_rate,
            "rejections_per_token": sum(each.rejected for each in items) / num_tokens,
            "forced_share": sum(each.forced for each in items) / num_tokens if answers.has_proxy else None,
            "passes_per_token": sum(each.passes for each in items) / num_tokens,
            "tokens_per_second": num_tokens / answers.seconds,
            "first_token_p50": float(first.quantile(0.5)) if len(first) else None,
            "gap_p50": float(gaps.quantile(0.5)) if len(gaps) else None,
            "gap_p95": float(gaps.quantile(0.95)) if len(gaps) else None,
        }


def compare(scores: Tensor, base: Tensor, seed: int) -> ScoreRow:
    """Scores (B,), or (S, B) of S training seeds, and the base's (B,); answers that score as the base's do are ties."""
    table = torch.atleast_2d(scores)
    gains = (table - base) / max(float(base.std()) if base.numel() > 1 else 1.0, 1e-6)
    won = win_rate(table, base)
    won_by = outcomes(table, base)
    return ScoreRow(
        mean=float(table.mean()),
        gain=bootstrap(gains, seed),
        win_rate=won.interval if len(table) == 1 else bootstrap(won_by, seed),
        wins=won.wins,
        ties=won.ties,
        losses=won.losses,
        gain_by_seed=tuple(gains.mean(dim=1).tolist()),
        win_rate_by_seed=tuple(won_by.mean(dim=1).tolist()),
    )


def mean_over_seeds(values: Iterable[float | None]) -> Any:
    """The mean of what is there; None when nothing is."""
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def readable_texts(answers: Answers) -> list[str]:
    """The answers, those that were cut off without their last, maybe broken, word."""
    return [without_broken_end(each.text) if each.finish_reason == "length" else each.text for each in answers.items]


def changed_rate(answers: Answers, base: Answers) -> float:
    """Share of the answers that differ from the base's in a token."""
    pairs = zip(answers.items, base.items, strict=True)
    return sum(each.token_ids != other.token_ids for each, other in pairs) / len(base.items)


def _spread(members: Sequence[dict[str, float | None]]) -> dict[str, float]:
    if len(members) == 1:
        return {}
    columns = {name: [each[name] for each in members] for name in members[0]}
    return {
        name: deviation([value for value in values if value is not None])
        for name, values in columns.items()
        if None not in values
    }
