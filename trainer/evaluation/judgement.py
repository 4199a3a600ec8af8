"""From answers to the numbers of a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from proxy_model.frozen_llm import FrozenLLM
from trainer.evaluation.answers import Answers
from trainer.evaluation.report import ScoreRow, SystemRow
from trainer.evaluation.statistics import paired_bootstrap, win_rate
from trainer.evaluation.text_metrics import Dictionary, distinct, repetition, without_broken_end
from trainer.rewards import RewardModel
from trainer.rewards.progress import tracked
from trainer.rollout import EncodedPrompt

_TEXTS_PER_PASS = 16


@dataclass(frozen=True, slots=True)
class Judgement:
    """What answers are held against."""

    llm: FrozenLLM
    prompts: Sequence[EncodedPrompt]
    scorers: Mapping[str, RewardModel]
    known_texts: Sequence[str]
    """Texts whose words count as words."""

    seed: int
    progress: Progress

    def rows(self, answers: Sequence[Answers]) -> tuple[SystemRow, ...]:
        """One row a system; the first system is the base that the others are compared with."""
        base = answers[0]
        dictionary = Dictionary.of(self.known_texts, readable_texts(base))
        base_scores = self._scores(base)
        rows = [self._row(base, base, base_scores, base_scores, dictionary)]
        for each in answers[1:]:
            rows.append(self._row(each, base, self._scores(each), base_scores, dictionary))
        return tuple(rows)

    def _row(
        self,
        answers: Answers,
        base: Answers,
        scores: Mapping[str, Tensor],
        base_scores: Mapping[str, Tensor],
        dictionary: Dictionary,
    ) -> SystemRow:
        finished, num_tokens = answers.finished, answers.num_tokens
        usages = [each.usage for each in finished]
        return SystemRow(
            system=answers.system.name,
            scores={label: compare(found, base_scores[label], self.seed) for label, found in scores.items()},
            nll=self._nll(answers),
            length=num_tokens / len(finished),
            rep_4=sum(repetition(each.token_ids, 4) for each in finished) / len(finished),
            distinct_2=distinct((each.token_ids for each in finished), 2),
            eos_rate=sum(each.finish_reason == "stop" for each in finished) / len(finished),
            garble_rate=dictionary.garble_rate(readable_texts(answers)),
            changed_rate=changed_rate(answers, base),
            accept_rate=answers.accept_rate,
            rejections_per_token=sum(usage.rejected for usage in usages) / num_tokens,
            forced_share=None if answers is base else sum(usage.forced for usage in usages) / num_tokens,
            passes_per_token=sum(usage.passes for usage in usages) / num_tokens,
            tokens_per_second=num_tokens / answers.seconds,
        )

    def _scores(self, answers: Answers) -> dict[str, Tensor]:
        conversations = [
            (prompt.messages, each.text) for prompt, each in zip(self.prompts, answers.finished, strict=True)
        ]
        starts = range(0, len(conversations), _TEXTS_PER_PASS)
        found = {}
        for label, scorer in self.scorers.items():
            bar = tracked(self.progress, starts, f"{answers.system.name}: {label}")
            found[label] = torch.cat([scorer.score(conversations[start : start + _TEXTS_PER_PASS]) for start in bar])
        return found

    def _nll(self, answers: Answers) -> float:
        """Over all tokens of all answers, end tokens included."""
        pairs = list(zip(self.prompts, answers.finished, strict=True))
        total = 0.0
        for start in tracked(
            self.progress, range(0, len(pairs), _TEXTS_PER_PASS), f"{answers.system.name}: likelihood"
        ):
            some = pairs[start : start + _TEXTS_PER_PASS]
            sequences = [[*prompt.token_ids, *each.token_ids] for prompt, each in some]
            logprobs = self.llm.token_logprobs(sequences, [len(prompt.token_ids) for prompt, _ in some])
            total -= sum(float(each.sum()) for each in logprobs)
        return total / answers.num_tokens


def compare(scores: Tensor, base: Tensor, seed: int) -> ScoreRow:
    """Scores of the same prompts, (B,) each; answers that score as the base's do are ties."""
    won = win_rate(scores, base)
    deviation = float(base.std()) if base.numel() > 1 else 1.0
    return ScoreRow(
        mean=float(scores.mean()),
        gain=paired_bootstrap((scores - base) / max(deviation, 1e-6), seed),
        win_rate=won.interval,
        wins=won.wins,
        ties=won.ties,
        losses=won.losses,
    )


def readable_texts(answers: Answers) -> list[str]:
    """The answers, those that were cut off without their last, maybe broken, word."""
    return [without_broken_end(each.text) if each.finish_reason == "length" else each.text for each in answers.finished]


def changed_rate(answers: Answers, base: Answers) -> float:
    """Share of the answers that differ from the base's in a token."""
    pairs = zip(answers.finished, base.finished, strict=True)
    return sum(each.token_ids != other.token_ids for each, other in pairs) / len(base.finished)
