"""Fit adapters and head together on the Bradley-Terry loss, from the head that fits the untouched backbone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor

from trainer.preferences import PreferencePair
from trainer.rewards.fit_frozen_head import default_taps
from trainer.rewards.linear_head import LinearHead, fit_head
from trainer.rewards.lora import LoraBackbone, LoraReward, LoraShape, Text, num_layers, num_tokens
from trainer.rewards.pairs import conversations_of
from trainer.rewards.progress import tracked
from trainer.rewards.training_config import RewardTrainingConfig

_HEAD_RATE = 10.0
"""The head's weights are of size 1 and move in steps this much larger than the adapters'."""

_MAX_GRADIENT = 1.0

_BATCHES_ALIKE = 16
"""Batches that are made of pairs drawn together, the shortest in one, so that little is read that is padding."""


def fit_lora(
    config: RewardTrainingConfig, pairs: Sequence[PreferencePair], progress: Progress
) -> tuple[LoraReward, Tensor, float]:
    """The model, the cross-validated margins (N,) of the head that it starts from, and that head's l2."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        backbone = LoraBackbone(_shape(config))
        texts = [backbone.encode(each) for each in conversations_of(pairs)]
        start, margins = _first_head(config, backbone, texts, progress)
        return LoraReward(backbone, _learn(config, backbone, start, texts, progress)), margins, start.l2


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
    config: RewardTrainingConfig, backbone: LoraBackbone, texts: Sequence[Text], progress: Progress
) -> tuple[LinearHead, Tensor]:
    """`texts` are the chosen and the rejected answer of each pair, in turns."""
    num_pairs = len(texts) // 2
    states = torch.empty(2, num_pairs, 1, backbone.model.config.hidden_size)
    with torch.no_grad():
        for batch in tracked(progress, _batches(config, texts), "read"):
            states[:, batch, 0] = _read(backbone, texts, batch)
    lengths = torch.zeros(num_pairs, 2, 1)
    return fit_head(states[0], states[1], lengths, l2=config.l2, length_control=0.0, seed=config.seed)


def _read(backbone: LoraBackbone, texts: Sequence[Text], pairs: Tensor) -> Tensor:
    """(2, N, D): the states of the chosen answers of some pairs (N,), and of the rejected ones."""
    states = backbone.read([texts[2 * pair + side] for side in (0, 1) for pair in pairs.tolist()])
    return states.reshape(2, len(pairs), -1)


def _learn(
    config: RewardTrainingConfig, backbone: LoraBackbone, start: LinearHead, texts: Sequence[Text], progress: Progress
) -> LinearHead:
    """Trains the adapters in place; returns the head, scaled by the last epoch's scores."""
    rate, num_epochs = config.lora.learning_rate, config.lora.epochs
    weights = start.weights.clone().requires_grad_()
    adapters = [each for each in backbone.model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(
        [{"params": adapters, "lr": rate}, {"params": [weights], "lr": rate * _HEAD_RATE}], weight_decay=0.0
    )
    steps = [batch for _ in range(num_epochs) for batch in _batches(config, texts)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / len(steps))
    seen = []
    for batch in tracked(progress, steps, "pairs"):
        scores = start.standardisation.apply(_read(backbone, texts, batch)) @ weights  # (2, N)
        loss = -F.logsigmoid(scores[0] - scores[1]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*adapters, weights], _MAX_GRADIENT)
        optimiser.step()
        schedule.step()
        seen.append(scores.detach().flatten())
    last = torch.cat(seen[-(len(seen) // num_epochs) :])
    return LinearHead(start.standardisation, weights.detach(), 0.0, float(last.mean()), float(last.std()), start.l2)


def _batches(config: RewardTrainingConfig, texts: Sequence[Text]) -> list[Tensor]:
    """All pairs in a random order, as batches (N,) of pairs that are about as long."""
    size = config.lora.batch_pairs
    longest = torch.tensor([num_tokens(text) for text in texts]).reshape(-1, 2).amax(dim=1)
    drawn = torch.randperm(len(longest)).split(size * _BATCHES_ALIKE)
    batches = [batch for some in drawn for batch in some[longest[some].argsort()].split(size)]
    return [batches[index] for index in torch.randperm(len(batches)).tolist()]
