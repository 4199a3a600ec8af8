"""What the answers of a whole folder were worth, before a run learns from them batch by batch."""

import torch
from torch import Tensor

from proxy_model.decision.policy import ProxyPolicy
from trainer.baselines import against_baseline
from trainer.batch import flatten, penalties
from trainer.config import TrainConfig
from trainer.offline.data import OfflineData
from trainer.offline.reference import under_reference
from trainer.targets import answer_returns, terminal_rewards

_PROMPTS_PER_PASS = 48


@torch.no_grad()
def data_returns(config: TrainConfig, data: OfflineData, reference: ProxyPolicy, embedding: Tensor) -> Tensor:
    """(P * G,) normalised scores less penalties and baseline, as `Targets.compared_returns` has them for a batch."""
    shaping, found = config.shaping, []
    for first in range(0, data.num_prompts, _PROMPTS_PER_PASS):
        rollout = data.rollout(range(first, min(first + _PROMPTS_PER_PASS, data.num_prompts)))
        assert rollout.scores is not None
        batch = under_reference(flatten(rollout.trajectories, embedding), reference)
        drift = penalties(batch, shaping.penalty, reference.config.initial_acceptance)
        scores = rollout.scores.to(embedding.device)
        terminal = terminal_rewards(scores, rollout.kinds, rollout.is_cut, data.moments, shaping)
        returns = answer_returns(terminal, batch, drift, shaping)
        found.append(against_baseline(returns, data.group_size, shaping.baseline))
    return torch.cat(found)
