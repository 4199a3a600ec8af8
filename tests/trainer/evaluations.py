"""What the tests of evaluations share: a tiny LLM's prompts, a reward, proxies, and how an evaluation is run."""

import json
from pathlib import Path

import torch
from rich.console import Console

from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import Checkpoint, write_checkpoint
from tests.trainer.preference_data import write_pairs
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.evaluation import Evaluation
from trainer.rewards.train import train_reward
from trainer.rewards.training_config import RewardTrainingConfig

SKAM = SkamConfig(top_p=0.95, p_t=0.0005, max_candidates=8)
QUIET = Console(quiet=True)


def write_prompts(path: Path) -> Path:
    """Nine short prompts of two sources, and one that is too long."""
    rows = [{"prompt": [{"role": "user", "content": f"q {n}"}], "source": "ab"[n % 2]} for n in range(9)]
    rows.append({"prompt": [{"role": "user", "content": "x" * 70}], "source": "a"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fit_reward(folder: Path, llm: FrozenLLM) -> Path:
    """A head on the tiny LLM's states."""
    config = RewardTrainingConfig(
        output=folder / "toy", train=(write_pairs(folder / "pairs.jsonl", 20),), taps=(2,), cuts=(16,)
    )
    train_reward(config, llm=llm, console=QUIET)
    return folder / "toy"


def checkpoint(llm: FrozenLLM, *, acceptance_bias: float, **fingerprint: str) -> Checkpoint:
    """A greedy proxy that accepts everything (bias above 0) or refuses whatever it may (below)."""
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=llm.hidden_size, hidden_size=4))
    with torch.no_grad():
        policy.actor.output.bias.fill_(acceptance_bias)
    return Checkpoint(policy, SKAM, {**llm.fingerprint, **fingerprint})


def write(folder: Path, llm: FrozenLLM, *, acceptance_bias: float) -> str:
    """The same as a folder; returns its name."""
    write_checkpoint(folder, checkpoint(llm, acceptance_bias=acceptance_bias))
    return str(folder)


def run(llm: FrozenLLM, prompts: Path, *systems: str, console: Console = QUIET, **changes: object) -> Evaluation:
    """An evaluation of nine prompts and twelve tokens."""
    values: dict[str, object] = {
        "prompts": prompts,
        "systems": systems,
        "max_tokens": 12,
        "max_prompt_tokens": 60,
        "max_running": 3,
        "dictionary": (prompts,),
        "model": "tiny",
    }
    return evaluate(EvaluationConfig(**{**values, **changes}), llm=llm, console=console)  # type: ignore[arg-type]
