"""Training runs for a reward that can be counted, answered by servers or by an engine of their own."""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from proxy_model.decision.config import SkamConfig
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from trainer.algorithm_config import PpoConfig
from trainer.config import ProxyShape, RewardConfig, RolloutConfig, TrainConfig
from trainer.loop import TrainResult, Watcher, train
from trainer.parts import Parts
from trainer.prompts import Prompt
from trainer.rewards.model import Conversation
from trainer.rewards.terms import trained_term
from trainer.rewards.weighted import WeightedReward, WeightedTerm
from trainer.served.config import ServersConfig

PROXY = "worded"
LENT = f"{PROXY}.rollouts"


class Length:
    """The longer an answer's text, the better."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        return torch.tensor([float(len(each.answer)) for each in conversations])


def run_config(
    output: Path, registry: Path, urls: Sequence[str], *, iterations: int = 3, **changes: object
) -> TrainConfig:
    """Eight prompts with two answers each an iteration; answered by an engine of the run's own without `urls`."""
    values: dict[str, object] = {
        "output": output,
        "registry": registry,
        "prompts": (Path("prompts.jsonl"),),
        "rewards": (trained_term(Path("reward")),),
        "proxy": PROXY,
        "num_prompts": 8 * iterations,
        "seed": 5,
        "tensorboard": False,
        "shape": ProxyShape(hidden_size=16, initial_acceptance=0.75),
        "skam": SkamConfig(top_p=0.95, p_t=0.0005),
        "rollout": RolloutConfig(prompts_per_iteration=8, responses_per_prompt=2, max_tokens=24, max_running=7),
        "shaping": RewardConfig(penalty_weight=0.0),
        "ppo": PpoConfig(learning_rate=3e-3, critic_pretrain_iterations=0),
        "servers": ServersConfig(urls=tuple(urls), patience_seconds=20, parallel=5) if urls else None,
    }
    return TrainConfig(**{**values, **changes})  # type: ignore[arg-type]


def train_on(
    llm: FrozenLLM, config: TrainConfig, *, is_resumed: bool = False, on_iteration: Watcher | None = None
) -> TrainResult:
    """Run it, or go on with it."""
    prompts = [Prompt(messages=[{"role": "user", "content": f"question {number}"}]) for number in range(20)]
    reward = WeightedReward((WeightedTerm(name="length", weight=1.0, model=Length()),))
    parts = Parts(llm=llm, reward_model=reward, prompts=prompts)
    return train(config, parts=parts, is_resumed=is_resumed, on_iteration=on_iteration)


def train_until_the_server_stops(llm_folder: Path, dtype: str, config: TrainConfig, server_pid: int) -> None:
    """A process of its own, which stops the server after its first iteration and so waits in its second one."""

    def stop_the_server(row: Mapping[str, float], warnings: list[str]) -> None:
        os.kill(server_pid, signal.SIGSTOP)

    train_on(load_llm(str(llm_folder), dtype=dtype, device="cpu"), config, on_iteration=stop_the_server)
