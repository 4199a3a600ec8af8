"""Fit adapters and head together on the Bradley-Terry loss, from the head that fits the untouched backbone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor

from trainer.preferences import PreferencePair
from trainer.rewards.fit_frozen_head import default_taps
from trainer.rewards.linear_head import LinearHead, fit_head
from trainer.rewards.lora import LoraBackbone, LoraReward, LoraShape, num_layers
from trainer.rewards.pairs import conversations_of
from trainer.rewards.progress import tracked
from trainer.rewards.training_config import RewardTrainingConfig

_HEAD_RATE = 10.0
"""The head's weights are of size 1 and move in steps this much larger than the adapters'."""

_MAX_GRADIENT = 1.0


def fit_lora(
    config: RewardTrainingConfig, pairs: Sequence[PreferencePair], progress: Progress
) -> tuple[LoraReward, Tensor, float]:
    """The model, the cross-validated margins (N,) of the head that it starts from, and that head's l2."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        backbone = LoraBackbone(_shape(config))
        start, margins = _first_head(config, backbone, pairs, progress)
        return LoraReward(backbone, _learn(config, backbone, start, pairs, progress)), margins, start.l2


def _shape(config: RewardTrainingConfig) -> LoraShape:
    tap = config.taps[-1] if config.taps else default_taps(num_layers(config.model))[-1]
    return LoraShape(
        backbone=config.model,
        tap=tap,
        layers=config.lora.layers,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        max_tokens=config.cuts[-1],
    )


def _first_head(
    config: RewardTrainingConfig, backbone: LoraBackbone, pairs: Sequence[PreferencePair], progress: Progress
) -> tuple[LinearHead, Tensor]:
    with torch.no_grad():
        read = [backbone.read(conversations_of(batch)) for batch in tracked(progress, _batches(config, pairs), "read")]
    states = torch.cat(read)[:, None]  # (2N, 1, D)
    lengths = torch.zeros(len(pairs), 2, 1)
    return fit_head(states[0::2], states[1::2], lengths, l2=config.l2, length_control=0.0, seed=config.seed)


def _learn(
    config: RewardTrainingConfig,
    backbone: LoraBackbone,
    start: LinearHead,
    pairs: Sequence[PreferencePair],
    progress: Progress,
) -> LinearHead:
    """Trains the adapters in place; returns the head, scaled by the last epoch's scores."""
    rate, num_epochs = config.lora.learning_rate, config.lora.epochs
    weights = start.weights.clone().requires_grad_()
    adapters = [each for each in backbone.model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(
        [{"params": adapters, "lr": rate}, {"params": [weights], "lr": rate * _HEAD_RATE}], weight_decay=0.0
    )
    steps = [batch for _ in range(num_epochs) for batch in _batches(config, _shuffled(pairs))]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / len(steps))
    seen = []
    for batch in tracked(progress, steps, "pairs"):
        scores = start.standardisation.apply(backbone.read(conversations_of(batch))) @ weights
        loss = -F.logsigmoid(scores[0::2] - scores[1::2]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*adapters, weights], _MAX_GRADIENT)
        optimiser.step()
        schedule.step()
        seen.append(scores.detach())
    last = torch.cat(seen[-(len(seen) // num_epochs) :])
    return LinearHead(start.standardisation, weights.detach(), 0.0, float(last.mean()), float(last.std()), start.l2)


def _shuffled(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    return [pairs[index] for index in torch.randperm(len(pairs)).tolist()]


def _batches(config: RewardTrainingConfig, pairs: Sequence[PreferencePair]) -> list[Sequence[PreferencePair]]:
    size = config.lora.batch_pairs
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]
