"""Likelihood of the proxy's own answers, weighted by how good they were (Offline RLHF, arXiv:2308.12050).

Three ways to weigh, z being an answer's return in deviations from the mean over the folder of answers, or online over
the batch (`Targets.z_of_policy`); with `shaping.baseline` what the prompt's other answers had is taken off first:

`mle`  1 for answers with z above a threshold and for the best answer to each prompt, 0 for the others
`rwr`  min(exp(z / beta), max weight), batch mean 1
`awr`  the same of what is still to come at a position less the critic's value; trains the critic, too

Loss: minus the mean over units of weight * log pi(actions of the unit). It needs no log-probability of the policy that
answered, so answers of any earlier policy would do.
"""

import torch
from torch import Tensor

from proxy_model.decision.policy import ProxyPolicy
from trainer.algorithm_config import LikelihoodConfig
from trainer.algorithms.optimisation import descend, minibatches
from trainer.algorithms.ppo import bernoulli_entropy, clipped_value_loss
from trainer.algorithms.units import Units
from trainer.algorithms.update_log import UpdateLog, UpdateStatistics
from trainer.batch import PpoBatch, kl_of_acceptance
from trainer.targets import Targets


def filtered(z: Tensor, group_size: int, threshold: float) -> Tensor:
    """(B,) 1 where an answer is kept: `threshold` deviations above the mean, or the best of its prompt's answers."""
    is_good = z > threshold
    if group_size == 1:
        return is_good.float()
    groups = z.reshape(-1, group_size)
    is_best = (groups == groups.amax(dim=1, keepdim=True)) & (groups.amax(1) > groups.amin(1))[:, None]
    return (is_good | is_best.flatten()).float()


def exponential_weights(z: Tensor, beta: float, max_weight: float) -> Tensor:
    """min(exp(z / beta), max_weight), scaled to a mean of 1."""
    weights = (z / beta).exp().clamp(max=max_weight)
    return weights / weights.mean()


def standardised(values: Tensor) -> Tensor:
    """Deviations from the mean; equal values become 0."""
    return (values - values.mean()) / (values.std(correction=0) + 1e-8)


def effective_share(weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 over their number: 1 where all weigh the same, 1/N where one has everything."""
    return weights.sum() ** 2 / weights.square().sum().clamp(min=1e-12) / max(weights.numel(), 1)


def update_mle(
    policy: ProxyPolicy,
    optimizer: torch.optim.Adam,
    batch: PpoBatch,
    targets: Targets,
    config: LikelihoodConfig,
    seed: int,
) -> UpdateStatistics:
    """Imitate the answers that pass the filter."""
    weights = filtered(targets.z_of_policy, targets.group_size, config.threshold)
    return _fit(policy, optimizer, batch, weights, batch.to_positions(weights), config, seed)


def update_rwr(
    policy: ProxyPolicy,
    optimizer: torch.optim.Adam,
    batch: PpoBatch,
    targets: Targets,
    config: LikelihoodConfig,
    seed: int,
) -> UpdateStatistics:
    """Reward-weighted regression."""
    weights = exponential_weights(targets.z_of_policy, config.beta, config.max_weight)
    return _fit(policy, optimizer, batch, weights, batch.to_positions(weights), config, seed)


def update_awr(
    policy: ProxyPolicy,
    optimizer: torch.optim.Adam,
    batch: PpoBatch,
    targets: Targets,
    config: LikelihoodConfig,
    seed: int,
) -> UpdateStatistics:
    """Advantage-weighted regression; the critic is fitted to the returns beside it."""
    advantages = standardised(targets.returns - targets.old_values)
    weights = exponential_weights(advantages, config.beta, config.max_weight)
    return _fit(policy, optimizer, batch, weights, weights, config, seed, targets.returns)


def _fit(
    policy: ProxyPolicy,
    optimizer: torch.optim.Adam,
    batch: PpoBatch,
    samples: Tensor,
    weights: Tensor,
    config: LikelihoodConfig,
    seed: int,
    returns: Tensor | None = None,
) -> UpdateStatistics:
    """Epochs over position weights (T,); `samples` are the weights whose effective share is reported."""
    units = Units.of(batch, "position")
    log = UpdateLog()
    log.final.update(effective_samples=float(effective_share(samples)))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.epochs):
        kls: list[float] = []
        for positions in minibatches(batch.num_positions, config.minibatches, generator, batch.hidden.device):
            is_unit = units.at(positions)
            if bool(is_unit.any()):
                kls.append(_policy_step(policy, optimizer, units, is_unit, weights, config, log))
            if returns is not None:
                values = policy.values(batch.hidden[positions])
                loss = clipped_value_loss(values, values, returns[positions], 0.0)
                norm = descend(optimizer, policy.critic, config.value_weight * loss, config.max_grad_norm)
                log.add(value_loss=loss, critic_grad_norm=norm)
        log.final.update(approx_kl=sum(kls) / max(len(kls), 1))
    log.final.update(policy_epochs=config.epochs)
    return log.statistics()


def _policy_step(
    policy: ProxyPolicy,
    optimizer: torch.optim.Adam,
    units: Units,
    is_unit: Tensor,
    weights: Tensor,
    config: LikelihoodConfig,
    log: UpdateLog,
) -> float:
    """Train the actor on some units; returns their KL(old, new) before the step, which it has on any answers."""
    logits, logprobs = units.evaluate(policy, is_unit)
    loss = -(weights[units.position[is_unit]] * logprobs).mean()
    norm = descend(optimizer, policy.actor, loss, config.max_grad_norm)
    log.add(policy_loss=loss, actor_grad_norm=norm, entropy=bernoulli_entropy(logits).mean())
    old_logits = units.batch.old_logits[units.decisions[is_unit[units.unit]]]
    return float(kl_of_acceptance(old_logits, logits.detach()).sum() / logprobs.numel())
