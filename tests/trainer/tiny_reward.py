"""A reward model that is fitted in a moment."""

from pathlib import Path

from rich.progress import Progress

from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.preferences import PreferencePair
from trainer.rewards.fit_frozen_head import fit_frozen_head
from trainer.rewards.folder import write_reward
from trainer.rewards.training_config import RewardTrainingConfig


def write_tiny_reward(folder: Path, llm: FrozenLLM) -> None:
    """One that likes short answers."""
    pairs = [
        PreferencePair(prompt=[{"role": "user", "content": f"q {n}"}], chosen=f"no {n}", rejected=f"it may be that {n}")
        for n in range(10)
    ]
    config = RewardTrainingConfig(output=folder, train=(Path(),), taps=(1,), cuts=(24,), l2=(0.01,), length_control=0.0)
    model, _, _ = fit_frozen_head(config, pairs, llm, Progress(disable=True))
    write_reward(folder, model.stored({}))
