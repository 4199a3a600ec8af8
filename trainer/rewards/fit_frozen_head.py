"""Fit the training reward's head on the frozen LLM's states."""

from collections.abc import Sequence

import torch
from rich.progress import Progress
from torch import Tensor

from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.preferences import PreferencePair
from trainer.rewards.folder import read_reward
from trainer.rewards.frozen_features import FrozenFeatures
from trainer.rewards.frozen_head import FrozenHead
from trainer.rewards.linear_head import fit_head
from trainer.rewards.model import Conversation
from trainer.rewards.pairs import sides_of
from trainer.rewards.training_config import RewardTrainingConfig

_DEPTHS = (0.4, 0.535)
"""Found on SmolLM2-135M (30 layers): 12 and 16 order HH pairs as well as any set of layers; half the LLM is run."""


def default_taps(num_layers: int) -> tuple[int, ...]:
    """The layers at 40 % and 53 % of the depth."""
    return tuple(sorted({max(1, round(depth * num_layers)) for depth in _DEPTHS}))


def fit_frozen_head(
    config: RewardTrainingConfig, pairs: Sequence[PreferencePair], llm: FrozenLLM, progress: Progress
) -> tuple[FrozenHead, Tensor, float]:
    """The model, the cross-validated margins (N,) of `pairs`, and the chosen l2."""
    start = None if config.start is None else FrozenHead.from_stored(read_reward(config.start), llm)
    features = _features(config, llm) if start is None else start.features
    chosen, rejected = sides_of(pairs)
    lengths = [features.lengths(llm, side, config.cuts) for side in (chosen, rejected)]  # (N, C) each
    head, margins = fit_head(
        _read(features, llm, chosen, config.cuts, progress),
        _read(features, llm, rejected, config.cuts, progress),
        torch.stack(lengths, dim=1),
        l2=config.l2,
        length_control=config.control,
        seed=config.seed,
        start=None if start is None else start.head,
    )
    return FrozenHead(llm, features, head), margins, head.l2


def _features(config: RewardTrainingConfig, llm: FrozenLLM) -> FrozenFeatures:
    return FrozenFeatures(
        taps=config.taps or default_taps(llm.num_layers),
        max_tokens=config.cuts[-1],
        with_last_token=config.with_last_token,
    )


def _read(
    features: FrozenFeatures, llm: FrozenLLM, side: Sequence[Conversation], cuts: Sequence[int], progress: Progress
) -> Tensor:
    """(N, C, F)."""
    read = features.read(llm, side, cuts)
    return torch.stack(list(progress.track(read, total=len(side), description="read answers")))
