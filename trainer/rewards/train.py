"""`proxy-rlhf reward`: from preference pairs to a reward model with its report."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.preferences import PreferencePair, deal, load_preferences
from trainer.rewards import bradley_terry
from trainer.rewards.fit_frozen_head import fit_frozen_head
from trainer.rewards.fit_lora import fit_lora
from trainer.rewards.fit_sentence_judge import fit_sentence_judge, fit_words
from trainer.rewards.folder import write_reward
from trainer.rewards.frozen_head import FrozenHead
from trainer.rewards.lora import LoraReward
from trainer.rewards.model import Conversation, RewardModel
from trainer.rewards.pairs import conversations_of, num_shared
from trainer.rewards.progress import reading_progress, tracked
from trainer.rewards.report import Accuracy, RewardReport, correlation
from trainer.rewards.sentence_judge import SentenceJudge
from trainer.rewards.training_config import RewardTrainingConfig

_TEXTS_PER_SCORE = 32


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model with what cross-validation said of it."""

    model: FrozenHead | SentenceJudge | LoraReward
    margins: Tensor
    """(N,) cross-validated margins of the training pairs."""

    l2: float


def train_reward(
    config: RewardTrainingConfig, *, llm: FrozenLLM | None = None, console: Console | None = None
) -> RewardReport:
    """Check the data, fit, report on the held-out pairs, print the table and write the folder.

    `llm` spares the loading of `config.model`. Raises `DataError` and `InvalidParameter` before any compute is spent.
    """
    started = time.perf_counter()
    console = console or Console()
    if config.output.exists():
        raise InvalidParameter("output", str(config.output), "a folder that does not exist yet")
    train, test = _load_pairs(config)
    with reading_progress(console) as progress:
        trained = _fit(config, train, llm, progress)
        report = _report(config, train, test, trained, progress, started)
    write_reward(config.output, trained.model.stored(_card(config, report)))
    console.print(report.table())
    return report


def _load_pairs(config: RewardTrainingConfig) -> tuple[list[PreferencePair], list[PreferencePair]]:
    train = deal(load_preferences(config.train), config.half)
    test = load_preferences(config.test)
    if config.max_pairs:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed)).tolist()
        train = [train[index] for index in order[: config.max_pairs]]
    if len(train) < 10:
        raise InvalidParameter("train", [str(path) for path in config.train], "files with at least 10 usable pairs")
    return train, test


def _fit(
    config: RewardTrainingConfig, train: Sequence[PreferencePair], llm: FrozenLLM | None, progress: Progress
) -> Trained:
    if config.kind == "sentence_judge":
        return Trained(*fit_sentence_judge(config, train, progress))
    if config.kind == "lora":
        return Trained(*fit_lora(config, train, progress))
    if llm is None:
        from proxy_model.llm.frozen_llm import load_llm

        llm = load_llm(config.model)
    return Trained(*fit_frozen_head(config, train, llm, progress))


def _report(
    config: RewardTrainingConfig,
    train: Sequence[PreferencePair],
    test: Sequence[PreferencePair],
    trained: Trained,
    progress: Progress,
    started: float,
) -> RewardReport:
    shown = test or train[:500]
    conversations = conversations_of(shown)
    scores = _score(trained.model, conversations, progress)
    answers = [each.answer for each in conversations]
    lengths = torch.tensor([len(answer.split()) for answer in answers], dtype=torch.float32).clamp(min=1)
    rows = {config.kind: scores} | _parts(trained.model, conversations)
    rows |= {"bag of words, same pairs": _bag_of_words(train, answers, config.seed), "longer is better": lengths}
    return RewardReport(
        kind=config.kind,
        num_train_pairs=len(train),
        cross_validated=bradley_terry.accuracy(trained.margins),
        l2=trained.l2,
        length_correlation=correlation(scores, lengths.log()),
        seconds=time.perf_counter() - started,
        accuracies=tuple(
            Accuracy.of(name, row[0::2] - row[1::2], is_calibrated=name == config.kind)
            for name, row in rows.items()
            if test
        ),
        num_learnt_test_pairs=num_shared(test, train),
    )


def _score(model: RewardModel, conversations: Sequence[Conversation], progress: Progress) -> Tensor:
    starts = range(0, len(conversations), _TEXTS_PER_SCORE)
    parts = [
        model.score(conversations[start : start + _TEXTS_PER_SCORE]) for start in tracked(progress, starts, "score")
    ]
    return torch.cat(parts)


def _parts(model: RewardModel, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
    """A judge's two heads, each by itself."""
    if not isinstance(model, SentenceJudge):
        return {}
    return {
        "its sentence head": model.sentence_scores(conversations),
        "its word head": model.word_scores(conversations),
    }


def _bag_of_words(train: Sequence[PreferencePair], answers: Sequence[str], seed: int) -> Tensor:
    words, _ = fit_words([pair.chosen for pair in train], [pair.rejected for pair in train], seed)
    return words.score(answers)


def _card(config: RewardTrainingConfig, report: RewardReport) -> dict[str, Any]:
    """Files by their names only: paths say something about the machine, not about the model."""
    settings = {**asdict(config), "train": [p.name for p in config.train], "test": [p.name for p in config.test]}
    del settings["output"], settings["encoder"]
    settings["start"] = None if config.start is None else config.start.name
    card: dict[str, Any] = json.loads(json.dumps({"settings": settings, "report": report.to_json()}))
    return card
