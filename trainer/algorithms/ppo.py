"""Proximal policy optimisation of the proxy (arXiv:1707.06347 with the tricks of arXiv:2307.04964).

What has a probability ratio is a unit, see `units`. Deviations, by number:

1. Policy loss, whitening and entropy run over units and divide by their number; forced decisions have no part in them.
2. Actor and critic share no weight, so each has its gradient clipped alone, and after the KL stop the critic goes on.
3. Whitening is over the whole batch, not per minibatch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from proxy_model.decision.policy import ProxyPolicy
from trainer.advantages import whiten
from trainer.algorithm_config import PpoConfig
from trainer.algorithms.optimisation import descend, minibatches
from trainer.algorithms.units import Units
from trainer.algorithms.update_log import UpdateLog, UpdateStatistics
from trainer.batch import PpoBatch
from trainer.ptx import Imitated
from trainer.targets import Targets


@dataclass(frozen=True, slots=True)
class Surrogate:
    """The clipped surrogate over U units."""

    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def clipped_surrogate(new_logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float) -> Surrogate:
    """mean of max(-A * ratio, -A * clip(ratio, 1 - clip, 1 + clip)) over units, all inputs (U,)."""
    log_ratio = new_logprobs - old_logprobs
    ratio = log_ratio.exp()
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)).mean()
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip).float().mean()
    return Surrogate(loss, approx_kl, clip_fraction)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """0.5 * mean of max((V - R)^2, (V_old + clip(V - V_old, +-clip) - R)^2), all inputs (T,); clip 0: unclipped."""
    errors = (values - returns) ** 2
    if clip > 0:
        bounded = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (bounded - returns) ** 2)
    return 0.5 * errors.mean()


def bernoulli_entropy(logits: Tensor) -> Tensor:
    """(N,) entropy of an acceptance in nats."""
    prob = logits.sigmoid()
    return -(prob * logsigmoid(logits) + (1 - prob) * logsigmoid(-logits))


def update(
    policy: ProxyPolicy,
    optimizer: torch.optim.Adam,
    batch: PpoBatch,
    targets: Targets,
    config: PpoConfig,
    seed: int,
    imitated: Imitated | None = None,
) -> UpdateStatistics:
    """Some epochs of minibatches over one batch, in place; `seed` decides the minibatches and nothing else.

    Each step of the policy has a share of the `imitated` answers in its loss.
    """
    learner = _Learner.of(policy, optimizer, batch, targets, config, imitated)
    generator, other_generator = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    is_policy_learning = learner.units.num_units > 0
    for epoch in range(config.epochs):
        kls: list[float] = []
        shares = learner.imitated_minibatches(other_generator)
        for positions, imitated_positions in zip(learner.minibatches(generator), shares, strict=False):
            if is_policy_learning:
                kls += learner.policy_step(positions, imitated_positions)
            learner.value_step(positions, config.value_clip)
        if is_policy_learning:
            approx_kl = sum(kls) / max(len(kls), 1)
            learner.log.final.update(approx_kl=approx_kl, policy_epochs=epoch + 1)
            is_policy_learning = config.target_kl == 0 or approx_kl <= config.target_kl
    return learner.log.statistics()


def pretrain_critic(
    policy: ProxyPolicy, optimizer: torch.optim.Adam, batch: PpoBatch, targets: Targets, config: PpoConfig, seed: int
) -> UpdateStatistics:
    """Fit the critic to the returns, unclipped, for `critic_pretrain_epochs`; the actor is not touched."""
    learner = _Learner.of(policy, optimizer, batch, targets, config)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.critic_pretrain_epochs):
        for positions in learner.minibatches(generator):
            learner.value_step(positions, 0.0)
    return learner.log.statistics()


@dataclass(frozen=True, slots=True)
class _Learner:
    """One update: what is learnt from, and the two networks' steps on a minibatch."""

    policy: ProxyPolicy
    optimizer: torch.optim.Adam
    targets: Targets
    config: PpoConfig
    units: Units
    advantages: Tensor
    """(U,) whitened over units where the settings say so."""

    imitated: Units | None = None
    """What is imitated beside."""

    ptx_weight: float = 0.0
    log: UpdateLog = field(default_factory=UpdateLog)

    @staticmethod
    def of(
        policy: ProxyPolicy,
        optimizer: torch.optim.Adam,
        batch: PpoBatch,
        targets: Targets,
        config: PpoConfig,
        imitated: Imitated | None = None,
    ) -> "_Learner":
        units = Units.of(batch, config.ratio_level)
        advantages = targets.advantages[units.position]
        advantages = whiten(advantages) if config.whiten else advantages
        if imitated is None:
            return _Learner(policy, optimizer, targets, config, units, advantages)
        others = Units.of(imitated.batch, config.ratio_level)
        return _Learner(policy, optimizer, targets, config, units, advantages, others, imitated.weight)

    def minibatches(self, generator: torch.Generator) -> Iterator[Tensor]:
        return self._minibatches(self.units, generator)

    def imitated_minibatches(self, generator: torch.Generator) -> Iterator[Tensor | None]:
        """As many shares of the imitated positions; None where there are no more."""
        shares = iter(()) if self.imitated is None else self._minibatches(self.imitated, generator)
        return chain(shares, repeat(None))

    def _minibatches(self, units: Units, generator: torch.Generator) -> Iterator[Tensor]:
        batch = units.batch
        return minibatches(batch.num_positions, self.config.minibatches, generator, batch.hidden.device)

    def policy_step(self, positions: Tensor, imitated_positions: Tensor | None = None) -> list[float]:
        """Train the actor on the units at `positions`; returns their KL(old, new), nothing when no unit is there."""
        is_unit = self.units.at(positions)
        if not bool(is_unit.any()):
            return []
        logits, new = self.units.evaluate(self.policy, is_unit)
        clip = self.config.policy_clip
        surrogate = clipped_surrogate(new, self.units.old_logprobs[is_unit], self.advantages[is_unit], clip)
        entropy = bernoulli_entropy(logits).mean()
        loss = surrogate.loss - self.config.entropy_weight * entropy
        if imitated_positions is not None:
            loss = loss + self.ptx_weight * self._ptx_loss(imitated_positions)
        norm = descend(self.optimizer, self.policy.actor, loss, self.config.max_grad_norm)
        self.log.add(
            policy_loss=surrogate.loss, clip_fraction=surrogate.clip_fraction, entropy=entropy, actor_grad_norm=norm
        )
        return [float(surrogate.approx_kl)]

    def _ptx_loss(self, positions: Tensor) -> Tensor:
        """Minus the mean log-probability of the imitated units at `positions`; 0 where nothing was free."""
        assert self.imitated is not None
        is_unit = self.imitated.at(positions)
        _, logprobs = self.imitated.evaluate(self.policy, is_unit)
        loss = -logprobs.sum() / is_unit.sum().clamp(min=1)
        self.log.add(ptx_loss=loss)
        return loss

    def value_step(self, positions: Tensor, clip: float) -> None:
        """Train the critic on `positions`."""
        old_values = self.targets.old_values[positions]
        values = self.policy.values(self.units.batch.hidden[positions])
        loss = clipped_value_loss(values, old_values, self.targets.returns[positions], clip)
        weighted = self.config.value_weight * loss
        norm = descend(self.optimizer, self.policy.critic, weighted, self.config.max_grad_norm)
        moved = ((values - old_values).abs() > self.config.value_clip).float().mean()
        self.log.add(value_loss=loss, value_clip_fraction=moved, critic_grad_norm=norm)
