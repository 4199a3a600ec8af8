"""Rows beside the base by a judge that is shown two answers: an LLM behind any OpenAI-compatible endpoint.

Each pair is asked about in both orders. Answers that are the same are not asked about, and tie. So do those on which
the judge contradicts itself when they are swapped, or says nothing that is a verdict.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.progress import Progress

from proxy_model.errors import GraderUnclear
from trainer.evaluation.answer import Answer, Answers
from trainer.evaluation.answering import AnsweredRow
from trainer.evaluation.config import PairwiseConfig
from trainer.evaluation.rows import PairwiseRow, SystemRow
from trainer.evaluation.statistics import WinRate, bootstrap
from trainer.rewards.endpoint import ChatEndpoint
from trainer.rewards.pairwise import PairwiseJudge
from trainer.rewards.verdicts import Verdicts
from trainer.rollout import EncodedPrompt

VERDICTS_FILE = "verdicts.jsonl"
"""What the judge has said, in the evaluation's folder: it is not paid twice."""

Outcome = Literal["win", "loss", "tie", "contradiction", "unclear", "same"]

_OUTCOMES: dict[str, Outcome] = {"first": "win", "second": "loss", "tie": "tie"}
_POINTS: dict[Outcome, float] = {"win": 1.0, "loss": 0.0}
"""Of those that are not ties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duels:
    """A judge and the prompts that all rows have answered."""

    judge: PairwiseJudge
    prompts: Sequence[EncodedPrompt]
    seed: int
    progress: Progress

    @classmethod
    def of(
        cls, config: PairwiseConfig, folder: Path, prompts: Sequence[EncodedPrompt], seed: int, progress: Progress
    ) -> "Duels":
        """Raises `InvalidParameter` for a key file that cannot be read."""
        endpoint = ChatEndpoint(config.endpoint, Verdicts(folder / VERDICTS_FILE))
        judge = PairwiseJudge(endpoint=endpoint, model=config.model, criterion=config.criterion)
        return cls(judge=judge, prompts=prompts, seed=seed, progress=progress)

    def rows(self, rows: Sequence[SystemRow], answered: Sequence[AnsweredRow]) -> tuple[SystemRow, ...]:
        """All but the first row, the base, with the judge's opinion. Raises `GraderFailed`, `CostCeilingReached`."""
        base = answered[0].members[0]
        pairs = zip(rows[1:], answered[1:], strict=True)
        return (rows[0], *(replace(row, pairwise=self._row(found, base)) for row, found in pairs))

    def _row(self, row: AnsweredRow, base: Answers) -> PairwiseRow:
        by_seed = [self._outcomes(row.label, answers, base) for answers in row.members]
        found = [outcome for outcomes in by_seed for outcome in outcomes]
        wins, losses = found.count("win"), found.count("loss")
        won = WinRate(wins=wins, ties=len(found) - wins - losses, losses=losses)
        points = torch.tensor([[_POINTS.get(each, 0.5) for each in outcomes] for outcomes in by_seed])
        num_firm = won.wins + won.losses + found.count("tie")
        num_asked = len(found) - found.count("same")
        return PairwiseRow(
            judge=self.judge.model,
            win_rate=won.interval if len(by_seed) == 1 else bootstrap(points, self.seed),
            wins=won.wins,
            ties=won.ties,
            losses=won.losses,
            agreement=num_firm / num_asked if num_asked else None,
            num_unclear=found.count("unclear"),
            win_rate_by_seed=tuple(points.mean(dim=1).tolist()),
        )

    def _outcomes(self, label: str, answers: Answers, base: Answers) -> list[Outcome]:
        duels = zip(self.prompts, answers.items, base.items, strict=True)
        with ThreadPoolExecutor(self.judge.endpoint.config.parallel) as pool:
            found = pool.map(lambda duel: self._outcome(*duel), duels)
            try:
                return list(self.progress.track(found, len(answers.items), description=f"{label}: pairwise"))
            finally:
                pool.shutdown(cancel_futures=True)

    def _outcome(self, prompt: EncodedPrompt, answer: Answer, other: Answer) -> Outcome:
        if answer.text == other.text:
            return "same"
        try:
            straight, swapped = self.judge.opinions(prompt.messages, answer.text, other.text)
        except GraderUnclear:
            return "unclear"
        return _OUTCOMES[straight] if straight == swapped else "contradiction"
