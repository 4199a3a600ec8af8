"""Runs in miniature with a held-out judge: longer is better, or shorter is, while the training reward pays length."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tests.trainer.runs import LengthReward, parts_in_miniature, small_config
from trainer.config import TrainConfig
from trainer.held_out.config import HeldOutConfig
from trainer.held_out.examiner import Examiner
from trainer.parts import Parts
from trainer.prompts import Prompt
from trainer.rewards.model import Conversation, RewardModel


class ShortnessReward:
    """Shorter is better."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        return torch.tensor([-float(len(each.answer)) for each in conversations])


def held_out_config(output: Path, *, iterations: int, **changes: object) -> TrainConfig:
    held_out = HeldOutConfig(prompts=Path("held_out.jsonl"), judge=Path("judge"), num_prompts=12, max_tokens=24)
    return small_config(output, iterations=iterations, held_out=held_out, **changes)  # type: ignore[arg-type]


def parts_with_judge(config: TrainConfig, judge: RewardModel | None = None) -> Parts:
    """The tiny LLM's parts, and twenty prompts that no run is trained on."""
    parts = parts_in_miniature()
    assert config.held_out is not None
    prompts = [Prompt(messages=[{"role": "user", "content": f"held out {number}"}]) for number in range(20)]
    judge = judge or LengthReward()
    examiner = Examiner.of(config.held_out, config.rollout, prompts, judge, parts.llm, config.seed)
    return replace(parts, examiner=examiner)
