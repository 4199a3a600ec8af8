"""Folders of answers in miniature: the tiny LLM, reward = length."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.trainer.runs import parts_in_miniature, small_config
from trainer.config import RolloutConfig, TrainConfig
from trainer.offline.collect import collect
from trainer.parts import Parts

SHARDS = 4


def answers_config(output: Path, **changes: object) -> TrainConfig:
    """Four shards of five prompts with three answers each, the last shard with two prompts less."""
    rollout = RolloutConfig(prompts_per_iteration=5, responses_per_prompt=3, max_tokens=16, max_running=12)
    values: dict[str, Any] = {"rollout": rollout, "num_prompts": 18}
    return small_config(output, iterations=1, **{**values, **changes})


def make_answers(
    output: Path, *, is_plain: bool = False, kill_after: int = 0, parts: Parts | None = None, **changes: object
) -> dict[str, float]:
    """Collect; with `kill_after` the process dies after that many shards."""

    def die(done: int, total: int) -> None:
        if done == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    config, loaded = answers_config(output, **changes), parts or parts_in_miniature()
    return dict(collect(config, loaded, is_plain=is_plain, on_shard=die))


if __name__ == "__main__":
    make_answers(Path(sys.argv[1]), kill_after=int(sys.argv[2]))
