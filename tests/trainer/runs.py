"""A whole training run in miniature: tiny LLM, reward = length. Run as a script, it kills itself after k iterations."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from proxy_model.decision.config import FeatureMode, SkamConfig
from tests.trainer.tiny_llm import tiny_llm
from trainer.algorithm_config import PpoConfig
from trainer.config import ProxyShape, RewardConfig, RolloutConfig, TrainConfig
from trainer.loop import TrainResult, train
from trainer.parts import Parts
from trainer.prompts import Prompt
from trainer.rewards.model import Conversation
from trainer.rewards.terms import trained_term
from trainer.rewards.weighted import WeightedReward, WeightedTerm


class LengthReward:
    """Longer is better: whatever a proxy learns from this, one can count."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        return torch.tensor([float(len(each.answer)) for each in conversations])


class Brevity:
    """Shorter is better, in units a hundred times as large as those of `LengthReward`."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        return torch.tensor([-100.0 * len(each.answer) for each in conversations])


def small_config(output: Path, *, iterations: int, features: FeatureMode = "prefix", **changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "output": output,
        "prompts": (Path("prompts.jsonl"),),
        "rewards": (trained_term(Path("reward")),),
        "proxy": "tiny",
        "save_every": 2,
        "num_prompts": 16 * iterations,
        "seed": 5,
        "tensorboard": False,
        "shape": ProxyShape(features=features, hidden_size=16, initial_acceptance=0.75),
        "skam": SkamConfig(top_p=0.95, p_t=0.0005, max_candidates=8),
        "rollout": RolloutConfig(prompts_per_iteration=16, max_tokens=24, max_running=12),
        "shaping": RewardConfig(penalty_weight=0.0),
        "ppo": PpoConfig(learning_rate=3e-3, target_kl=0.05),
    }
    return TrainConfig(**{**values, **changes})  # type: ignore[arg-type]


def run(config: TrainConfig, *, is_resumed: bool = False, kill_after: int = 0) -> TrainResult:
    """Train; with `kill_after` the process dies after that many iterations, as if the machine had lost power."""

    def die(row: Mapping[str, float], warnings: list[str]) -> None:
        if row["progress/iteration"] == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    return train(config, parts=parts_in_miniature(), is_resumed=is_resumed, on_iteration=die)


def parts_in_miniature() -> Parts:
    """The tiny LLM, forty prompts, and a reward that is the answer's length."""
    prompts = [Prompt(messages=[{"role": "user", "content": f"question {number}"}]) for number in range(40)]
    reward = WeightedReward((WeightedTerm(name="length", weight=1.0, model=LengthReward()),))
    return Parts(llm=tiny_llm(), reward_model=reward, prompts=prompts)


def two_sided_reward() -> WeightedReward:
    """Long answers to prompts of `long_...`, short ones to those of `short_...`."""
    return WeightedReward(
        (
            WeightedTerm(name="long", weight=1.0, model=LengthReward(), sources=("long",)),
            WeightedTerm(name="short", weight=1.0, model=Brevity(), sources=("short",)),
        )
    )


def two_sided_parts() -> Parts:
    """Ten prompts that are to be answered at length, and thirty that are not."""
    parts = parts_in_miniature()
    long = Prompt(messages=[{"role": "user", "content": "x" * 40}], source="long_a")
    short = [replace(each, source="short_b") for each in parts.prompts[10:]]
    return Parts(llm=parts.llm, reward_model=two_sided_reward(), prompts=[long] * 10 + short)


if __name__ == "__main__":
    run(small_config(Path(sys.argv[1]), iterations=int(sys.argv[2])), kill_after=int(sys.argv[3]))
