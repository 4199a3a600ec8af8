"""Brings a reward model of any kind from its folder to life."""

from pathlib import Path

from proxy_model.errors import BadCheckpoint
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.rewards import frozen_head, lora, sentence_judge
from trainer.rewards.folder import read_reward
from trainer.rewards.model import RewardModel


def load_reward(folder: Path, llm: FrozenLLM, *, encoder: Path | None = None) -> RewardModel:
    """Load a reward model.

    `encoder` is the sentence encoder's folder for a judge; None: wherever `sentence_source` finds it.
    Raises `BadCheckpoint`, `FingerprintMismatch` (fitted on another LLM or encoder), `ModelUnavailable`.
    """
    stored = read_reward(folder)
    match stored.kind:
        case frozen_head.KIND:
            return frozen_head.FrozenHead.from_stored(stored, llm)
        case sentence_judge.KIND:
            return sentence_judge.SentenceJudge.from_stored(stored, encoder)
        case lora.KIND:
            return lora.LoraReward.from_stored(stored)
    raise BadCheckpoint("format", f"{folder} holds a reward model of unknown kind {stored.kind!r}")
