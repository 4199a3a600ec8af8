"""Decision transformer: the answer's return is an input, and the proxy learns what answers of that return look like.

Offline RLHF (arXiv:2308.12050, after arXiv:2106.01345): no answer is thrown away or weighed; at serving time a high
return is asked for. The likelihood is supervised, so it does not matter who answered, or what they were told to aim at.

1. z is an answer's return in deviations over everything that the run has seen so far (`Targets.z`). Most of a return's
   variance lies between prompts, which no decision can move: `shaping.baseline` takes it out of what is told.
2. In each epoch some answers are not told their z, so that the proxy can also decide without one.
3. Online, the first iterations are answered without a target. Later ones get one each from the upper half of a standard
   normal distribution: what is asked for at serving time is explored, and what came of it is learnt as what it was.

Loss: minus the mean over units of log pi(actions of the unit given z). No critic.
"""

from dataclasses import replace

import torch
from torch import Tensor

from proxy_model.decision.features import target_scalars
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.ranges import TARGET_RETURN
from trainer.algorithm_config import DtConfig
from trainer.algorithms.optimisation import descend, minibatches
from trainer.algorithms.ppo import bernoulli_entropy
from trainer.algorithms.units import Units
from trainer.algorithms.update_log import UpdateLog, UpdateStatistics
from trainer.batch import PpoBatch
from trainer.targets import Targets


def aims(num_answers: int, iteration: int, config: DtConfig, seed: int) -> list[float | None]:
    """What each answer of an iteration is told to aim at; None: nothing."""
    if iteration < config.untold_iterations:
        return [None] * num_answers
    upper_half = torch.randn(num_answers, generator=torch.Generator().manual_seed(seed)).abs()
    return [float(each) for each in upper_half.clamp(max=TARGET_RETURN.high)]


def hindsight(z: Tensor, is_told: Tensor) -> Tensor:
    """(B, 2) the returns that the answers had as what they aimed at, 0 and 0 where that is not told."""
    return torch.stack([z, torch.ones_like(z)], dim=1) * is_told[:, None]


@torch.no_grad()
def dial_effect(policy: ProxyPolicy, batch: PpoBatch) -> Tensor:
    """Mean over free decisions of |pi(accept given z = 1) - pi(accept given z = -1)|; 0: the dial is not connected."""
    accepts = []
    for z in (1.0, -1.0):
        told = target_scalars([z]).to(batch.hidden.device).expand(batch.lengths.numel(), -1)
        units = Units.of(replace(batch, target=told), "position")
        accepts.append(units.evaluate(policy, torch.ones_like(units.position, dtype=torch.bool))[0].sigmoid())
    return (accepts[0] - accepts[1]).abs().mean()


def update(
    policy: ProxyPolicy, optimizer: torch.optim.Adam, batch: PpoBatch, targets: Targets, config: DtConfig, seed: int
) -> UpdateStatistics:
    """Some epochs of the actor over one batch, in place."""
    log = UpdateLog()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.epochs):
        is_told = torch.rand(targets.z.numel(), generator=generator) >= config.untold_share
        told = hindsight(targets.z, is_told.to(targets.z.device))
        units = Units.of(replace(batch, target=told), "position")
        for positions in minibatches(batch.num_positions, config.minibatches, generator, batch.hidden.device):
            is_unit = units.at(positions)
            if not bool(is_unit.any()):
                continue
            logits, logprobs = units.evaluate(policy, is_unit)
            loss = -logprobs.mean()
            norm = descend(optimizer, policy.actor, loss, config.max_grad_norm)
            log.add(policy_loss=loss, actor_grad_norm=norm, entropy=bernoulli_entropy(logits).mean())
    if bool(batch.is_free.any()):
        log.final.update(dial_effect=float(dial_effect(policy, batch)), policy_epochs=config.epochs)
    return log.statistics()
