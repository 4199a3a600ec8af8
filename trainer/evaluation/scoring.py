"""What reward models and the LLM alone say of answers; what is on disk is not scored again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.manifest import MANIFEST
from trainer.evaluation.answer import Answers
from trainer.evaluation.answer_store import AnswerStore
from trainer.rewards.load import load_reward
from trainer.rewards.model import Conversation, RewardModel
from trainer.rewards.progress import tracked
from trainer.rollout import EncodedPrompt

TRAINING_REWARD = "reward"
"""The label of the reward model that trained the proxies."""

_TEXTS_PER_PASS = 16


@dataclass(frozen=True, slots=True)
class Scorer:
    """A reward model and a digest of its files."""

    model: RewardModel
    digest: str


def load_scorers(
    reward: Path | None, judges: Sequence[Path], llm: FrozenLLM, encoder: Path | None
) -> dict[str, Scorer]:
    """The training reward and the judges by the labels that the table gives them."""
    folders = {} if reward is None else {TRAINING_REWARD: reward}
    for judge in judges:
        label = f"judge {judge.name}"
        folders[label if label not in folders else f"judge {judge}"] = judge
    return {
        label: Scorer(load_reward(folder, llm, encoder=encoder), _digest(folder)) for label, folder in folders.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Scores of whole answers to the prompts of an evaluation."""

    llm: FrozenLLM
    prompts: Sequence[EncodedPrompt]
    scorers: Mapping[str, Scorer]
    store: AnswerStore
    progress: Progress

    def model(self, label: str) -> RewardModel:
        """One of the reward models."""
        return self.scorers[label].model

    def digest(self, label: str) -> str:
        """What tells its files from others."""
        return self.scorers[label].digest

    def scores(self, label: str, answers: Answers) -> Tensor:
        """(B,) of every answer by one reward model."""
        scorer = self.scorers[label]
        found = self.store.read_scores(answers.key, scorer.digest, len(answers.items))
        if found is None:
            found = self._score(label, answers)
            self.store.write_scores(answers.key, scorer.digest, found)
        return torch.tensor(found)

    def nll(self, answers: Answers) -> float:
        """-mean log p under the LLM alone, over all tokens of all answers, end tokens included."""
        sums = self.store.read_scores(answers.key, "nll", len(answers.items))
        if sums is None:
            sums = self._surprise(answers)
            self.store.write_scores(answers.key, "nll", sums)
        return sum(sums) / answers.num_tokens

    def _score(self, label: str, answers: Answers) -> list[float]:
        model = self.model(label)
        pairs = zip(self.prompts, answers.items, strict=True)
        conversations = [Conversation(prompt.messages, each.text, prompt.item, prompt.source) for prompt, each in pairs]
        starts = range(0, len(conversations), _TEXTS_PER_PASS)
        bar = tracked(self.progress, starts, f"{answers.facts.name}: {label}")
        found: list[float] = []
        for start in bar:
            found += model.score(conversations[start : start + _TEXTS_PER_PASS]).tolist()
        return found

    def _surprise(self, answers: Answers) -> list[float]:
        """-log p of each answer."""
        pairs = list(zip(self.prompts, answers.items, strict=True))
        starts = range(0, len(pairs), _TEXTS_PER_PASS)
        found: list[float] = []
        for start in tracked(self.progress, starts, f"{answers.facts.name}: likelihood"):
            some = pairs[start : start + _TEXTS_PER_PASS]
            sequences = [[*prompt.token_ids, *each.token_ids] for prompt, each in some]
            logprobs = self.llm.token_logprobs(sequences, [len(prompt.token_ids) for prompt, _ in some])
            found += [-float(each.sum()) for each in logprobs]
        return found


def _digest(folder: Path) -> str:
    """Of a reward model's manifest, which names the sha256 of everything else."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
