"""The reward model in use, updated by feedback."""

from collections.abc import Sequence

from rich.console import Console

from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.preferences import PreferencePair
from trainer.rewards import bradley_terry
from trainer.rewards.fit_frozen_head import fit_frozen_head
from trainer.rewards.folder import write_reward
from trainer.rewards.progress import reading_progress
from trainer.rewards.training_config import RewardTrainingConfig

MIN_PAIRS = 5
"""One for each fold of the cross-validation."""


def update_reward(config: RewardTrainingConfig, pairs: Sequence[PreferencePair], llm: FrozenLLM) -> float:
    """Write a reward model whose weights are drawn towards those of `config.start`, learned from `pairs`.

    Returns its cross-validated accuracy. Raises `BadCheckpoint` unless `config.start` holds a head on this LLM's
    states, `InvalidParameter` if `config.output` exists.
    """
    assert config.start is not None
    with reading_progress(Console(quiet=True)) as progress:
        model, margins, chosen_l2 = fit_frozen_head(config, pairs, llm, progress)
    accuracy = bradley_terry.accuracy(margins)
    card = {"feedback": {"pairs": len(pairs), "start": config.start.name, "l2": chosen_l2, "cross_validated": accuracy}}
    write_reward(config.output, model.stored(card))
    return accuracy
