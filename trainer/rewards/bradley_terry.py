"""The Bradley-Terry model on linear features: P(chosen beats rejected) = sigmoid(w . (x_chosen - x_rejected)).

Pure functions on tensors, dense or sparse (COO). N pairs, F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from proxy_model.errors import InvalidParameter

_MAX_STEPS = 60


@dataclass(frozen=True, slots=True)
class Standardisation:
    """Mean and deviation of every feature over the training answers; both (F,)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Float[Tensor, "N F"]) -> "Standardisation":
        """Features that hardly vary keep their scale instead of being blown up."""
        return cls(features.mean(dim=0), features.std(dim=0) + 1e-3)

    def apply(self, features: Tensor) -> Tensor:
        """(..., F) in deviations from the mean, divided by sqrt(F): a random direction then has length about 1."""
        z: Tensor = (features - self.mean) / self.deviation
        return z / math.sqrt(self.deviation.numel())


def fit(
    differences: Float[Tensor, "N F"], l2: float, towards: Float[Tensor, " F"] | None = None
) -> Float[Tensor, " F"]:
    """Weights that minimise mean -log sigma(differences @ w) + l2 / 2 * |w - towards|^2, by L-BFGS; towards 0 or w."""
    centre = torch.zeros(differences.shape[1]) if towards is None else towards
    weights = centre.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=_MAX_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -F.logsigmoid(differences @ weights).mean() + l2 / 2 * (weights - centre).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()


def accuracy(margins: Float[Tensor, " N"]) -> float:
    """Share of pairs whose chosen answer scores higher; ties count half."""
    return float(((margins > 0).float() + (margins == 0).float() / 2).mean())


def calibration_error(margins: Float[Tensor, " N"], num_bins: int = 10) -> float:
    """Expected calibration error of sigma(|margin|) as the chance that the higher answer is the preferred one.

    Over bins of equal width in [0.5, 1]: the mean of |share that is right - mean chance|, weighted by the bins' pairs.
    """
    chances = margins.abs().sigmoid()
    is_right = (margins > 0).float() + (margins == 0).float() / 2
    bins = ((chances - 0.5) * 2 * num_bins).long().clamp(max=num_bins - 1)
    gaps = torch.zeros(num_bins).index_add(0, bins, is_right - chances)
    return float(gaps.abs().sum() / max(1, margins.numel()))


def cross_validated_margins(
    differences: Float[Tensor, "N F"],
    l2: float,
    fold: Int[Tensor, " N"],
    towards: Float[Tensor, " F"] | None = None,
) -> Float[Tensor, " N"]:
    """The margin of every pair under weights that were fitted without the pair's fold."""
    margins = torch.zeros(len(differences))
    for number in range(int(fold.max()) + 1):
        held_out, others = (fold == number).nonzero()[:, 0], (fold != number).nonzero()[:, 0]
        weights = fit(differences.index_select(0, others), l2, towards)
        margins[held_out] = differences.index_select(0, held_out) @ weights
    return margins


def choose_l2(
    differences: Float[Tensor, "N F"],
    fold: Int[Tensor, " N"],
    grid: Sequence[float],
    towards: Float[Tensor, " F"] | None = None,
) -> float:
    """The strength of `grid` with the least cross-validated loss."""
    if not grid:
        raise InvalidParameter("l2", list(grid), "at least one strength")
    if len(grid) == 1:
        return grid[0]
    losses = [float(-F.logsigmoid(cross_validated_margins(differences, l2, fold, towards)).mean()) for l2 in grid]
    return grid[losses.index(min(losses))]


def folds(num_pairs: int, num_folds: int, seed: int) -> Int[Tensor, " N"]:
    """A fold number for every pair, folds of equal size."""
    order = torch.randperm(num_pairs, generator=torch.Generator().manual_seed(seed))
    return order % num_folds
