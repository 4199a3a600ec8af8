"""One optimiser step, and the minibatches that it is made on."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from proxy_model.decision.policy import ProxyPolicy


def make_optimizer(policy: ProxyPolicy, learning_rate: float) -> torch.optim.Adam:
    """Adam over every parameter, epsilon 1e-5 as in PPO's reference implementations."""
    return torch.optim.Adam(policy.parameters(), lr=learning_rate, eps=1e-5)


def minibatches(num_positions: int, count: int, generator: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """The positions in random order, in `count` parts of nearly the same size, none of them empty."""
    order = torch.randperm(num_positions, generator=generator).to(device)
    yield from (part for part in order.tensor_split(count) if part.numel())


def descend(optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor, max_grad_norm: float) -> Tensor:
    """One step on `network` alone; returns the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), max_grad_norm)
    optimizer.step()
    return norm
