"""What a run learns from one iteration's answers and their scores: rewards, targets, an update of the weights."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from proxy_model.decision.policy import ProxyPolicy
from trainer.algorithms import ALGORITHMS, ppo
from trainer.algorithms.update_log import UpdateStatistics
from trainer.batch import PpoBatch, flatten
from trainer.config import TrainConfig
from trainer.kinds import dealt_within
from trainer.metrics import answer_metrics, decision_metrics, reward_metrics, update_metrics
from trainer.offline.reference import under_reference
from trainer.potential import rollout_potentials, shaping_rewards
from trainer.ptx import Demonstrations
from trainer.rewards.weighted import WeightedReward
from trainer.rollout import Rollout, derived_seed
from trainer.state import Progress
from trainer.targets import Targets, make_targets, terminal_rewards, yardstick


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A proxy's weights, changed in place, and how they are learnt."""

    config: TrainConfig
    reward_model: WeightedReward | None
    """Asked about beginnings of answers, where rewards are shaped by potentials."""

    policy: ProxyPolicy
    optimizer: torch.optim.Adam
    reference: ProxyPolicy | None
    """The policy that an offline run began with; None where answers are the policy's own."""

    group_size: int
    """Answers to one prompt, which stand next to each other."""

    embedding: Tensor
    """The LLM's (V, D)."""

    demonstrations: Demonstrations | None = None
    """What `ppo` imitates; None: nothing."""

    def learn(self, rollout: Rollout, scores: Tensor, progress: Progress) -> tuple[Progress, dict[str, float]]:
        """One update from the answers and their raw scores (B,): `progress` with its moments, and metrics."""
        config, policy, kinds, is_own = self.config, self.policy, rollout.kinds, self.reference is None
        if is_own:
            progress = replace(progress, moments=progress.moments.updated(scores, kinds))
        batch = flatten(rollout.trajectories, self.embedding)
        if self.reference is not None:
            batch = under_reference(batch, self.reference)
        dealt = self._dealt(scores, kinds, progress.iteration)
        terminal = terminal_rewards(dealt, kinds, rollout.is_cut, progress.moments, config.shaping)
        steps = self._potential_steps(rollout, progress)
        targets = make_targets(batch, terminal, policy, config.shaping, config.ppo, steps, self.group_size)
        if is_own:
            progress = replace(progress, return_moments=progress.return_moments.updated(targets.compared_returns))
        targets = replace(targets, return_moments=progress.return_moments, is_of_data=not is_own)
        statistics = self._update(batch, targets, progress.iteration)
        return progress, {
            **reward_metrics(scores, terminal, batch.per_answer(targets.penalties)),
            **decision_metrics(batch),
            **answer_metrics(batch, rollout.trajectories, policy.config.initial_acceptance),
            **update_metrics(statistics, targets),
        }

    def _potential_steps(self, rollout: Rollout, progress: Progress) -> Tensor | None:
        """(T,) what is moved to earlier positions of the rewards; nothing unless the settings ask for it."""
        shaping = self.config.shaping
        if self.reward_model is None or not shaping.potential or shaping.shuffle:
            return None
        potentials = rollout_potentials(self.reward_model, rollout)
        deviations = yardstick(progress.moments, shaping).deviations(rollout.kinds)
        return shaping_rewards(potentials, deviations).to(self.embedding.device)

    def _dealt(self, scores: Tensor, kinds: Tensor, iteration: int) -> Tensor:
        """The scores, or under the control `shuffle` each answer that of a random one of its kind."""
        if not self.config.shaping.shuffle:
            return scores
        seed = derived_seed(self.config.seed, "shuffle", iteration)
        return dealt_within(scores, kinds, torch.Generator().manual_seed(seed))

    def _update(self, batch: PpoBatch, targets: Targets, iteration: int) -> UpdateStatistics:
        config = self.config
        seed = derived_seed(config.seed, "update", iteration)
        has_critic = config.algorithm in ("ppo", "awr")
        if has_critic and iteration < config.ppo.critic_pretrain_iterations:
            return ppo.pretrain_critic(self.policy, self.optimizer, batch, targets, config.ppo, seed)
        update = ALGORITHMS[config.algorithm]
        if self.demonstrations is not None:
            count = config.rollout.prompts_per_iteration * config.rollout.responses_per_prompt
            update = partial(ppo.update, imitated=self.demonstrations.of(iteration, count, config.seed))
        return update(self.policy, self.optimizer, batch, targets, config.algorithm_settings, seed)
