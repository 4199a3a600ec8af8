"""What has one probability under the proxy, and one advantage or weight."""

from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.decision.features import DecisionFeatures
from proxy_model.decision.policy import ProxyPolicy
from trainer.algorithm_config import RatioLevel
from trainer.batch import PpoBatch, action_logprobs


@dataclass(frozen=True, slots=True)
class Units:
    """The U units of a batch, made of M free decisions.

    At level `position` a unit is a position with at least one free decision, its decisions one macro-action; at level
    `decision` each free decision is one.
    """

    batch: PpoBatch
    decisions: Tensor
    """(M,) indices of the free decisions."""

    unit: Tensor
    """(M,) the unit of each of them, ascending."""

    position: Tensor
    """(U,) the position of each unit."""

    old_logprobs: Tensor
    """(U,)"""

    @property
    def num_units(self) -> int:
        return self.position.numel()

    @staticmethod
    def of(batch: PpoBatch, level: RatioLevel) -> "Units":
        """The units of `batch`; none where nothing was free."""
        free = batch.is_free.nonzero().squeeze(1)
        if level == "position":
            position, unit = torch.unique_consecutive(batch.position[free], return_inverse=True)
        else:
            position, unit = batch.position[free], torch.arange(free.numel(), device=free.device)
        old = batch.old_logprobs.new_zeros(position.numel()).index_add(0, unit, batch.old_logprobs[free])
        return Units(batch, free, unit, position, old)

    def at(self, positions: Tensor) -> Tensor:
        """(U,) True where a unit belongs to one of `positions`."""
        is_chosen = torch.zeros(self.batch.num_positions, dtype=torch.bool, device=positions.device)
        is_chosen[positions] = True
        return is_chosen[self.position]

    def evaluate(self, policy: ProxyPolicy, is_unit: Tensor) -> tuple[Tensor, Tensor]:
        """Acceptance logits of the chosen units' decisions, and the chosen units' log-probabilities."""
        batch = self.batch
        is_decision = is_unit[self.unit]
        chosen = self.decisions[is_decision]
        unit = (is_unit.cumsum(0) - 1)[self.unit[is_decision]]
        features = DecisionFeatures(
            prefix_hidden=batch.hidden[batch.position[chosen]],
            candidate=batch.candidate[chosen],
            scalars=batch.scalars[chosen],
            target=batch.to_positions(batch.target)[batch.position[chosen]],
        )
        logits = policy.accept_logits(features)
        of_decisions = action_logprobs(logits, batch.is_accept[chosen])
        return logits, of_decisions.new_zeros(int(is_unit.sum())).index_add(0, unit, of_decisions)


@torch.no_grad()
def changed_decisions(policy: ProxyPolicy, batch: PpoBatch) -> float:
    """Share of the free decisions that `policy` and the policy that decided take differently when both are greedy."""
    units = Units.of(batch, "decision")
    logits, _ = units.evaluate(policy, torch.ones_like(units.position, dtype=torch.bool))
    return float(((logits > 0) != (batch.old_logits[units.decisions] > 0)).float().mean()) if logits.numel() else 0.0
