"""Value-guided decoding, the yardstick without any policy gradient: accept what is expected to end well.

The rule: accept t_j iff V(s, t_j) >= mean V of the rest - margin. A proxy's actor sees one candidate at a time, so it
learns the difference itself: V(s), the critic, is the mean of V(s, t) over what the LLM may say next, hence
V(s, t) - V(rest) = (V(s, t) - V(s)) / (1 - p(t)), whose sign is that of the gap V(s, t) - V(s). The actor's logit is

    logit(s, t) = (gap(s, t) + margin) / temperature

and is fitted so that V(s) + gap(s, t) is the return of the answer that went on with t (least squares). Served like any
other proxy, greedy decisions are the rule. What is left out: after a rejection the rest is smaller, V(s) is not.
"""

import torch
from torch import Tensor

from proxy_model.decision.features import DecisionFeatures
from proxy_model.decision.policy import ProxyPolicy
from trainer.algorithm_config import ValueConfig
from trainer.algorithms.optimisation import descend, minibatches
from trainer.algorithms.ppo import clipped_value_loss
from trainer.algorithms.units import changed_decisions
from trainer.algorithms.update_log import UpdateLog, UpdateStatistics
from trainer.batch import PpoBatch
from trainer.targets import Targets


def update(
    policy: ProxyPolicy, optimizer: torch.optim.Adam, batch: PpoBatch, targets: Targets, config: ValueConfig, seed: int
) -> UpdateStatistics:
    """Some epochs of critic and actor over one batch, in place."""
    log = UpdateLog()
    generator = torch.Generator().manual_seed(seed)
    accepted = batch.is_accept.nonzero().squeeze(1)  # (T,): each position has one
    for _ in range(config.epochs):
        for positions in minibatches(batch.num_positions, config.minibatches, generator, batch.hidden.device):
            returns = targets.returns[positions]
            values = policy.values(batch.hidden[positions])
            value_loss = clipped_value_loss(values, values, returns, 0.0)
            norm = descend(optimizer, policy.critic, config.value_weight * value_loss, config.max_grad_norm)
            gaps = predicted_gaps(policy, batch, accepted[positions], config)
            loss = clipped_value_loss(gaps, gaps, returns - values.detach(), 0.0)
            actor_norm = descend(optimizer, policy.actor, loss, config.max_grad_norm)
            log.add(value_loss=value_loss, critic_grad_norm=norm, policy_loss=loss, actor_grad_norm=actor_norm)
    log.final.update(changed_decisions=changed_decisions(policy, batch), policy_epochs=config.epochs)
    return log.statistics()


def predicted_gaps(policy: ProxyPolicy, batch: PpoBatch, decisions: Tensor, config: ValueConfig) -> Tensor:
    """(M,) V(s, t) - V(s) of some decisions' candidates, as the actor has it, in units of the return."""
    position = batch.position[decisions]
    features = DecisionFeatures(
        prefix_hidden=batch.hidden[position],
        candidate=batch.candidate[decisions],
        scalars=batch.scalars[decisions],
        target=batch.to_positions(batch.target)[position],
    )
    return policy.accept_logits(features) * config.temperature - config.margin
