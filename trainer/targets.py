"""What an update pulls the proxy towards: from raw scores to advantages and value targets."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxy_model.decision.policy import ProxyPolicy
from proxy_model.ranges import TARGET_RETURN
from trainer.advantages import RunningMoments, generalised_advantages, normalise, position_rewards
from trainer.algorithm_config import Baseline, PpoConfig
from trainer.baselines import against_baseline
from trainer.batch import PpoBatch, penalties
from trainer.config import RewardConfig
from trainer.kinds import KindMoments


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """One value per position."""

    advantages: Tensor
    """(T,) not whitened."""

    returns: Tensor
    """(T,) value target."""

    old_values: Tensor
    """(T,) the critic's values when the answers were made."""

    penalties: Tensor
    """(T,) what the shaping took off each position's reward, at least 0 with the gap penalty."""

    answer_returns: Tensor
    """(B,) normalised score less penalties, before any baseline."""

    group_size: int = 1
    """Answers to one prompt, which stand next to each other."""

    baseline: Baseline = "none"
    return_moments: RunningMoments = field(default_factory=RunningMoments)
    """Of the compared returns of the whole run so far."""

    is_of_data: bool = False
    """Whether those are all returns of a folder of answers."""

    @property
    def compared_returns(self) -> Tensor:
        """(B,) the answer returns less what the prompt's other answers say was to be expected."""
        return against_baseline(self.answer_returns, self.group_size, self.baseline)

    @property
    def z(self) -> Tensor:
        """(B,) the compared returns in deviations from their mean over the run, as far as a target may go."""
        return normalise(self.compared_returns, self.return_moments, TARGET_RETURN.high)

    @property
    def z_of_policy(self) -> Tensor:
        """(B,) `z` among the answers of one policy: those of the folder, or online of this batch."""
        if self.is_of_data:
            return self.z
        return normalise(self.compared_returns, RunningMoments().updated(self.compared_returns), TARGET_RETURN.high)


def terminal_rewards(
    scores: Tensor, kinds: Tensor, is_cut: Tensor, moments: KindMoments, config: RewardConfig
) -> Tensor:
    """(B,) what each answer's last position receives for its raw score (B,), among those of its kind (B,).

    `is_cut` (B,): stopped at `max_tokens`.
    """
    normalised = yardstick(moments, config).normalised(scores, kinds, config.clip)
    return normalised - config.cut_penalty * is_cut.to(scores.device)


def yardstick(moments: KindMoments, config: RewardConfig) -> KindMoments:
    """What scores are measured by: the run's `moments`, or those of nothing, mean 0 and deviation 1."""
    return moments if config.normalise else KindMoments()


def answer_returns(terminal: Tensor, batch: PpoBatch, drift: Tensor, shaping: RewardConfig) -> Tensor:
    """(B,) `terminal` rewards less the weighted penalties of each answer's positions, `drift` (T,)."""
    return terminal - shaping.penalty_weight * batch.per_answer(drift)


@torch.no_grad()
def make_targets(
    batch: PpoBatch,
    terminal: Tensor,
    policy: ProxyPolicy,
    shaping: RewardConfig,
    ppo: PpoConfig,
    potential_steps: Tensor | None = None,
    group_size: int = 1,
) -> Targets:
    """Shape the `terminal` rewards (B,) by the penalty and by `potential_steps` (T,), and spread them out."""
    drift = penalties(batch, shaping.penalty, policy.config.initial_acceptance)
    compared = against_baseline(terminal, group_size, shaping.baseline)
    rewards = position_rewards(compared, drift, batch.lengths, shaping.penalty_weight)
    if potential_steps is not None:
        rewards = rewards + potential_steps
    values = policy.values(batch.hidden)
    to_go = generalised_advantages(rewards, values, batch.lengths, ppo.discount, ppo.value_lambda)
    return Targets(
        advantages=generalised_advantages(rewards, values, batch.lengths, ppo.discount, ppo.policy_lambda),
        returns=values + to_go,
        old_values=values,
        penalties=shaping.penalty_weight * drift,
        answer_returns=answer_returns(terminal, batch, drift, shaping),
        group_size=group_size,
        baseline=shaping.baseline,
    )
