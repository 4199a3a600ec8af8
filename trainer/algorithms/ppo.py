"""Proximal policy optimisation of the proxy (arXiv:1707.06347 with the tricks of arXiv:2307.04964).

A *unit* is what has a probability ratio: a position with at least one free decision (`ratio_level = "position"`: its
decisions are one macro-action), or a free decision alone (`"decision"`). Deviations, by number:

1. Policy loss, whitening and entropy run over units and divide by their number; forced decisions have no part in them.
2. Actor and critic share no weight, so each has its gradient clipped alone, and after the KL stop the critic goes on.
3. Whitening is over the whole batch, not per minibatch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from proxy_model.features import DecisionFeatures
from proxy_model.policy import ProxyPolicy
from trainer.advantages import whiten
from trainer.batch import PpoBatch, action_logprobs
from trainer.config import PpoConfig
from trainer.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatistics:
    """Means over the minibatches of an update; the policy's over those until it stopped."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    approx_kl: float = 0.0
    """KL(old, new) per unit in the last epoch of the policy: mean of ratio - 1 - log ratio."""

    clip_fraction: float = 0.0
    """Share of units whose ratio is further than `policy_clip` from 1."""

    value_clip_fraction: float = 0.0
    """Share of positions whose value moved by more than `value_clip`."""

    entropy: float = 0.0
    """Of the Bernoulli acceptance, mean over free decisions, in nats."""

    actor_grad_norm: float = 0.0
    critic_grad_norm: float = 0.0
    policy_epochs: float = 0.0
    """Epochs that the policy did before its KL reached the target."""


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


def make_optimizer(policy: ProxyPolicy, config: PpoConfig) -> torch.optim.Adam:
    """Adam over every parameter, epsilon 1e-5 as in PPO's reference implementations."""
    return torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5)


def update(
    policy: ProxyPolicy, optimizer: torch.optim.Adam, batch: PpoBatch, targets: Targets, config: PpoConfig, seed: int
) -> UpdateStatistics:
    """Some epochs of minibatches over one batch, in place; `seed` decides the minibatches and nothing else."""
    learner = _Learner(policy, optimizer, batch, targets, config, _Units.of(batch, targets.advantages, config))
    generator = torch.Generator().manual_seed(seed)
    is_policy_learning = learner.units.num_units > 0
    for epoch in range(config.epochs):
        kls: list[float] = []
        for positions in learner.minibatches(generator):
            if is_policy_learning:
                kls += learner.policy_step(positions)
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
    learner = _Learner(policy, optimizer, batch, targets, config, _Units.of(batch, targets.advantages, config))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.critic_pretrain_epochs):
        for positions in learner.minibatches(generator):
            learner.value_step(positions, 0.0)
    return learner.log.statistics()


@dataclass(frozen=True, slots=True)
class _Units:
    """The units of a batch: U of them, made of M free decisions."""

    decisions: Tensor
    """(M,) indices of the free decisions."""

    unit: Tensor
    """(M,) the unit of each of them, ascending."""

    position: Tensor
    """(U,) the position of each unit."""

    old_logprobs: Tensor
    """(U,)"""

    advantages: Tensor
    """(U,) whitened over units."""

    @property
    def num_units(self) -> int:
        return self.position.numel()

    @staticmethod
    def of(batch: PpoBatch, advantages: Tensor, config: PpoConfig) -> "_Units":
        free = batch.is_free.nonzero().squeeze(1)
        if config.ratio_level == "position":
            position, unit = torch.unique_consecutive(batch.position[free], return_inverse=True)
        else:
            position, unit = batch.position[free], torch.arange(free.numel(), device=free.device)
        old = batch.old_logprobs.new_zeros(position.numel()).index_add(0, unit, batch.old_logprobs[free])
        return _Units(free, unit, position, old, whiten(advantages[position]))


class _Log:
    """Sums of what the minibatches report, and the figures that are not means."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.final: dict[str, float] = {}

    def add(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
            self.counts[name] = self.counts.get(name, 0) + 1

    def statistics(self) -> UpdateStatistics:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        known = {each.name for each in fields(UpdateStatistics)}
        return UpdateStatistics(**{name: value for name, value in {**means, **self.final}.items() if name in known})


@dataclass(frozen=True, slots=True)
class _Learner:
    """One update: what is learnt from, and the two networks' steps on a minibatch."""

    policy: ProxyPolicy
    optimizer: torch.optim.Adam
    batch: PpoBatch
    targets: Targets
    config: PpoConfig
    units: _Units
    log: _Log = field(default_factory=_Log)

    def minibatches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The positions in random order, in parts of nearly the same size, none of them empty."""
        order = torch.randperm(self.batch.num_positions, generator=generator).to(self.batch.hidden.device)
        yield from (part for part in order.tensor_split(self.config.minibatches) if part.numel())

    def policy_step(self, positions: Tensor) -> list[float]:
        """Train the actor on the units at `positions`; returns their KL(old, new), nothing when no unit is there."""
        is_chosen = torch.zeros(self.batch.num_positions, dtype=torch.bool, device=positions.device)
        is_chosen[positions] = True
        is_unit = is_chosen[self.units.position]
        if not bool(is_unit.any()):
            return []
        logits, new = self._evaluate(is_unit)
        clip = self.config.policy_clip
        surrogate = clipped_surrogate(new, self.units.old_logprobs[is_unit], self.units.advantages[is_unit], clip)
        entropy = bernoulli_entropy(logits).mean()
        norm = self._step(self.policy.actor, surrogate.loss - self.config.entropy_weight * entropy)
        self.log.add(
            policy_loss=surrogate.loss, clip_fraction=surrogate.clip_fraction, entropy=entropy, actor_grad_norm=norm
        )
        return [float(surrogate.approx_kl)]

    def value_step(self, positions: Tensor, clip: float) -> None:
        """Train the critic on `positions`."""
        old_values = self.targets.old_values[positions]
        values = self.policy.values(self.batch.hidden[positions])
        loss = clipped_value_loss(values, old_values, self.targets.returns[positions], clip)
        norm = self._step(self.policy.critic, self.config.value_weight * loss)
        moved = ((values - old_values).abs() > self.config.value_clip).float().mean()
        self.log.add(value_loss=loss, value_clip_fraction=moved, critic_grad_norm=norm)

    def _evaluate(self, is_unit: Tensor) -> tuple[Tensor, Tensor]:
        """Acceptance logits of the chosen units' decisions, and the chosen units' log-probabilities."""
        is_decision = is_unit[self.units.unit]
        chosen = self.units.decisions[is_decision]
        unit = (is_unit.cumsum(0) - 1)[self.units.unit[is_decision]]
        features = DecisionFeatures(
            prefix_hidden=self.batch.hidden[self.batch.position[chosen]],
            candidate=self.batch.candidate[chosen],
            scalars=self.batch.scalars[chosen],
        )
        logits = self.policy.accept_logits(features)
        of_decisions = action_logprobs(logits, self.batch.is_accept[chosen])
        return logits, of_decisions.new_zeros(int(is_unit.sum())).index_add(0, unit, of_decisions)

    def _step(self, network: nn.Module, loss: Tensor) -> Tensor:
        """One optimiser step on one of the two networks; returns the gradient's norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return norm
