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
    """Count prompt by prompt; differences up to `tie` are ties."""
    difference = torch.as_tensor(scores, dtype=torch.float64) - torch.as_tensor(baseline, dtype=torch.float64)
    wins, losses = int((difference > tie).sum()), int((difference < -tie).sum())
    return WinRate(wins=wins, ties=difference.numel() - wins - losses, losses=losses)


def paired_bootstrap(differences: Tensor | Sequence[float], seed: int = 0, num_samples: int = 2000) -> Interval:
    """Mean of paired `differences` with the percentile interval over `num_samples` draws of the prompts."""
    values = torch.as_tensor(differences, dtype=torch.float64)
    if values.numel() == 0:
        raise InvalidParameter("differences", [], "at least one number")
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(values.numel(), (num_samples, values.numel()), generator=generator)
    means = values[draws].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(values.mean()), low, high)
