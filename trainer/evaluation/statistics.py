"""How sure a comparison is: intervals for win rates and for paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.errors import InvalidParameter

Z_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the bounds of its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often one system beat another on the same prompts."""

    wins: int
    ties: int
    losses: int

    @property
    def interval(self) -> Interval:
        """Wins plus half of the ties, of all prompts, with Wilson bounds."""
        return wilson_interval(self.wins + self.ties / 2, self.wins + self.ties + self.losses)


def wilson_interval(successes: float, num_trials: int, z: float = Z_95) -> Interval:
    """Wilson's score interval for a proportion; `successes` may hold halves (ties)."""
    if num_trials < 1 or not 0 <= successes <= num_trials:
        raise InvalidParameter("successes", successes, f"in [0, num_trials], and num_trials above 0 (is {num_trials})")
    share = successes / num_trials
    shrink = 1 + z * z / num_trials
    centre = (share + z * z / (2 * num_trials)) / shrink
    margin = z / shrink * math.sqrt(share * (1 - share) / num_trials + z * z / (4 * num_trials**2))
    return Interval(share, max(0.0, centre - margin), min(1.0, centre + margin))


def win_rate(scores: Tensor | Sequence[float], baseline: Tensor | Sequence[float], tie: float = 1e-6) -> WinRate:
    """Count prompt by prompt, of `scores` (..., B) against (B,); differences up to `tie` are ties."""
    difference = torch.as_tensor(scores, dtype=torch.float64) - torch.as_tensor(baseline, dtype=torch.float64)
    wins, losses = int((difference > tie).sum()), int((difference < -tie).sum())
    return WinRate(wins=wins, ties=difference.numel() - wins - losses, losses=losses)


def outcomes(scores: Tensor, baseline: Tensor, tie: float = 1e-6) -> Tensor:
    """1 for a win, .5 for a tie, 0 for a loss of each of `scores` (..., B) against the baseline's (B,), float64."""
    difference = scores.double() - baseline.double()
    return 0.5 + 0.5 * torch.sign(difference) * (difference.abs() > tie)


def bootstrap(values: Tensor | Sequence[float], seed: int = 0, num_samples: int = 2000) -> Interval:
    """Mean of `values` (B,), or (S, B) of S training seeds, with the percentile interval of its bootstrap.

    Every sample draws the prompts and, on its own, the seeds with replacement; all seeds have the same prompts. With
    three seeds the spread between them is known poorly: the interval is too narrow rather than too wide.
    """
    table = torch.atleast_2d(torch.as_tensor(values, dtype=torch.float64))
    num_seeds, num_prompts = table.shape
    if table.numel() == 0:
        raise InvalidParameter("values", [], "at least one number")
    generator = torch.Generator().manual_seed(seed)
    by_prompt = _shares(num_samples, num_prompts, generator)
    by_seed = _shares(num_samples, num_seeds, generator)
    means = ((by_seed @ table) * by_prompt).sum(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(table.mean()), low, high)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 of fewer than two."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def _shares(num_samples: int, size: int, generator: torch.Generator) -> Tensor:
    """(num_samples, size) how often each of `size` things is drawn with replacement, as shares."""
    draws = torch.randint(size, (num_samples, size), generator=generator)
    counts = torch.zeros(num_samples, size, dtype=torch.float64)
    return counts.scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.float64)) / size
