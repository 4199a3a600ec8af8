"""Rewards of positions and what is learnt from them: pure functions over flat tensors.

Shapes: B answers, T positions of all answers one after another, `lengths` (B,) positions of each answer, N decisions.
Deviation from PPO-max: the value target is GAE with its own lambda (1 by default), since a terminal reward seen
through lambda .95 over 128 positions weighs .0014 (VC-PPO, arXiv:2503.01491).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMoments:
    """Mean and variance of every score of the run so far (Chan's parallel update of Welford's moments)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared distances to the mean."""

    @property
    def deviation(self) -> float:
        """Population standard deviation; 1 before two different scores have been seen."""
        variance = self.squares / self.count if self.count else 0.0
        return variance**0.5 if variance > 1e-12 else 1.0

    def updated(self, scores: Tensor) -> "RunningMoments":
        """The moments with a batch of `scores` (B,) added."""
        values = scores.double()
        count = self.count + values.numel()
        distance = float(values.mean()) - self.mean
        squares = float(((values - values.mean()) ** 2).sum())
        return RunningMoments(
            count=count,
            mean=self.mean + distance * values.numel() / count,
            squares=self.squares + squares + distance**2 * self.count * values.numel() / count,
        )


def normalise(scores: Tensor, moments: RunningMoments, clip: float) -> Tensor:
    """(B,) scores in running standard deviations from the running mean, bounded by `clip` (0: unbounded)."""
    normalised = (scores - moments.mean) / moments.deviation
    return normalised.clamp(-clip, clip) if clip > 0 else normalised


def position_rewards(terminal: Tensor, penalties: Tensor, lengths: Tensor, weight: float) -> Tensor:
    """(T,) reward of each position: -weight * penalty, plus the answer's `terminal` (B,) at its last position."""
    rewards = -weight * penalties
    rewards[lengths.cumsum(0) - 1] += terminal
    return rewards


def generalised_advantages(rewards: Tensor, values: Tensor, lengths: Tensor, discount: float, lam: float) -> Tensor:
    """(T,) A_t = sum over l of (discount * lam)^l * (r_{t+l} + discount * V_{t+l+1} - V_{t+l}).

    Generalised advantage estimation (arXiv:1506.02438) with V = 0 after an answer's end. All answers run side by side,
    aligned at their last position.
    """
    rewards_padded, values_padded = _aligned_at_end(rewards, lengths), _aligned_at_end(values, lengths)
    num_positions = rewards_padded.shape[1]
    advantages = torch.zeros_like(rewards_padded)
    following = torch.zeros_like(rewards_padded[:, 0])
    next_value = torch.zeros_like(following)
    for position in reversed(range(num_positions)):
        value = values_padded[:, position]
        error = rewards_padded[:, position] + discount * next_value - value
        following = error + discount * lam * following
        advantages[:, position] = following
        next_value = value
    return advantages[_is_real(lengths, num_positions)]


def whiten(advantages: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the units that act, and over nothing else; one unit alone becomes 0."""
    if advantages.numel() < 2:
        return torch.zeros_like(advantages)
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - var(returns - values) / var(returns); 0 when the returns do not vary."""
    variance = float(returns.var(correction=0))
    return 1.0 - float((returns - values).var(correction=0)) / variance if variance > 1e-12 else 0.0


def _is_real(lengths: Tensor, num_positions: int) -> Tensor:
    """(B, num_positions) True where an answer that ends in the last column has a position."""
    return torch.arange(num_positions, device=lengths.device) >= num_positions - lengths[:, None]


def _aligned_at_end(flat: Tensor, lengths: Tensor) -> Tensor:
    num_positions = int(lengths.max())
    padded = flat.new_zeros(lengths.numel(), num_positions)
    padded[_is_real(lengths, num_positions)] = flat
    return padded
