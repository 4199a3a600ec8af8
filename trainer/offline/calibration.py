"""The threshold of a policy that was learnt from texts: how often it refuses says little about how often it should.

A likelihood or a preference moves every acceptance a little, and greedy decisions ask only on which side of one half it
is. So the output bias is shifted until a wanted share of the LLM's first choices is refused; their order stays.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from proxy_model.policy import ProxyPolicy
from proxy_model.trajectory import Trajectory, decision_features, decisions

_NUM_ANSWERS = 512
"""Answers that are looked at, evenly spread over all."""


@torch.no_grad()
def first_choice_logits(policy: ProxyPolicy, trajectories: Sequence[Trajectory], embedding: Tensor) -> Tensor:
    """(M,) acceptance logits of the free first candidates of some answers, as a served version would give them."""
    target_return = policy.config.target_return(None)
    found = [torch.empty(0, device=embedding.device)]
    for trajectory in trajectories[:: -(-len(trajectories) // _NUM_ANSWERS)]:
        visited = decisions(trajectory)
        told = replace(trajectory, target_return=target_return)
        is_asked = visited.is_free & (visited.indices == 0)
        features = decision_features(told, embedding)[is_asked]
        found.append(policy.accept_logits(features.to(embedding.device)))
    return torch.cat(found)


@torch.no_grad()
def calibrated(policy: ProxyPolicy, logits: Tensor, reject_rate: float) -> ProxyPolicy:
    """A copy of `policy` whose greedy decisions refuse `reject_rate` of the decisions with its `logits` (M,)."""
    shifted = deepcopy(policy)
    if logits.numel():
        shifted.actor.output.bias.sub_(torch.quantile(logits[:: -(-logits.numel() // 1_000_000)], reject_rate))
    return shifted
