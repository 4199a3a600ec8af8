"""REINFORCE against the other answers to the same prompt (RLOO, arXiv:2402.14740; GRPO's norm, arXiv:2402.03300).

No critic: every unit of an answer shares its advantage, the answer's return (reward less penalties) over the baseline.
Deviation: a batch is used for more than one step, since its features are cached, and so the ratio is clipped as in PPO.
"""

import torch

from proxy_model.decision.policy import ProxyPolicy
from trainer.advantages import whiten
from trainer.algorithm_config import RlooConfig
from trainer.algorithms.optimisation import descend, minibatches
from trainer.algorithms.ppo import bernoulli_entropy, clipped_surrogate
from trainer.algorithms.units import Units
from trainer.algorithms.update_log import UpdateLog, UpdateStatistics
from trainer.baselines import against_baseline
from trainer.batch import PpoBatch
from trainer.targets import Targets


def update(
    policy: ProxyPolicy, optimizer: torch.optim.Adam, batch: PpoBatch, targets: Targets, config: RlooConfig, seed: int
) -> UpdateStatistics:
    """Some epochs of the actor over one batch, in place, until its KL reaches the target."""
    units = Units.of(batch, "position")
    of_answers = against_baseline(targets.answer_returns, targets.group_size, config.baseline)
    advantages = whiten(batch.to_positions(of_answers)[units.position])
    log = UpdateLog()
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(config.epochs if units.num_units else 0):
        kls = []
        for positions in minibatches(batch.num_positions, config.minibatches, generator, batch.hidden.device):
            is_unit = units.at(positions)
            if not bool(is_unit.any()):
                continue
            logits, new = units.evaluate(policy, is_unit)
            surrogate = clipped_surrogate(new, units.old_logprobs[is_unit], advantages[is_unit], config.policy_clip)
            norm = descend(optimizer, policy.actor, surrogate.loss, config.max_grad_norm)
            kls.append(float(surrogate.approx_kl))
            entropy = bernoulli_entropy(logits).mean()
            log.add(
                policy_loss=surrogate.loss, clip_fraction=surrogate.clip_fraction, entropy=entropy, actor_grad_norm=norm
            )
        approx_kl = sum(kls) / len(kls)
        log.final.update(approx_kl=approx_kl, policy_epochs=epoch + 1)
        if 0 < config.target_kl < approx_kl:
            break
    return log.statistics()
