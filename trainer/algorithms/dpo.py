"""Direct preference optimisation of the proxy on replayed pairs (arXiv:2305.18290): no reward model, no rollouts.

Loss: -log sigma(beta * (ratio of the chosen answer - ratio of the rejected one)). An answer's ratio is the
log-probability of its free decisions under the policy less that under the reference, with which the run began. The two
answers of a pair stand next to each other, the chosen one first.

1. `per_position`: ratios are means over an answer's free positions, so that a long answer is not an argument and every
   pair goes on pulling; beta is then some ten times as large as for sums.
2. The loss says in which order candidates are liked, not on which side of one half: see `offline.calibration`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from proxy_model.decision.policy import ProxyPolicy
from trainer.algorithm_config import DpoConfig
from trainer.algorithms.optimisation import descend, minibatches
from trainer.algorithms.ppo import bernoulli_entropy
from trainer.algorithms.units import Units, changed_decisions
from trainer.algorithms.update_log import UpdateLog, UpdateStatistics
from trainer.batch import PpoBatch
from trainer.targets import Targets


def preference_loss(ratios: Tensor, beta: float) -> Tensor:
    """Mean over P pairs; `ratios` (P, 2), the chosen answer's first."""
    return -logsigmoid(beta * (ratios[:, 0] - ratios[:, 1])).mean()


def update(
    policy: ProxyPolicy, optimizer: torch.optim.Adam, batch: PpoBatch, targets: Targets, config: DpoConfig, seed: int
) -> UpdateStatistics:
    """Some epochs of the actor over a batch of pairs, in place."""
    pairs = _Pairs.of(batch, is_mean=config.per_position)
    log = UpdateLog()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.epochs if pairs.units.num_units else 0):
        for chosen in minibatches(pairs.num_pairs, config.minibatches, generator, batch.hidden.device):
            ratios, logits = pairs.ratios(policy, chosen)
            if not logits.numel():
                continue
            loss = preference_loss(ratios, config.beta)
            norm = descend(optimizer, policy.actor, loss, config.max_grad_norm)
            log.add(policy_loss=loss, actor_grad_norm=norm, entropy=bernoulli_entropy(logits).mean())
    with torch.no_grad():
        ratios, _ = pairs.ratios(policy, torch.arange(pairs.num_pairs, device=batch.hidden.device))
        log.final.update(
            pair_accuracy=float((ratios[:, 0] > ratios[:, 1]).float().mean()),
            changed_decisions=changed_decisions(policy, batch),
            policy_epochs=config.epochs,
        )
    return log.statistics()


@dataclass(frozen=True, slots=True)
class _Pairs:
    """P pairs of answers, and which of their U units belongs to which answer."""

    units: Units
    answer: Tensor
    """(U,)"""

    weights: Tensor
    """(2 P,) what the sum of an answer's units is multiplied with."""

    @staticmethod
    def of(batch: PpoBatch, *, is_mean: bool) -> "_Pairs":
        units = Units.of(batch, "position")
        answer = batch.to_positions(torch.arange(batch.lengths.numel(), device=batch.lengths.device))[units.position]
        counts = torch.bincount(answer, minlength=batch.lengths.numel())
        return _Pairs(units, answer, 1.0 / counts.clamp(min=1) if is_mean else torch.ones_like(counts).float())

    @property
    def num_pairs(self) -> int:
        return len(self.weights) // 2

    def ratios(self, policy: ProxyPolicy, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(P', 2) log-ratios of the `chosen` pairs' answers, and the logits of their decisions."""
        is_unit = torch.isin(self.answer // 2, chosen)
        logits, logprobs = self.units.evaluate(policy, is_unit)
        sums = torch.zeros_like(self.weights).index_add(
            0, self.answer[is_unit], logprobs - self.units.old_logprobs[is_unit]
        )
        return (sums * self.weights).view(-1, 2)[chosen], logits
