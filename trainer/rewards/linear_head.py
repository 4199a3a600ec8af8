"""A standardised linear score with the share of its own length bias taken out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from proxy_model.errors import BadCheckpoint
from trainer.rewards import bradley_terry
from trainer.rewards.bradley_terry import Standardisation

NUM_FOLDS = 5


@dataclass(frozen=True, slots=True)
class LinearHead:
    """score = (z(x) @ weights - length_slope * log(tokens) - offset) / scale.

    Over the training answers the scores have mean 0 and deviation 1.
    """

    standardisation: Standardisation
    weights: Tensor
    length_slope: float
    offset: float
    scale: float
    l2: float

    def score(self, features: Float[Tensor, "B F"], log_lengths: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Scores of B answers."""
        raw = self.standardisation.apply(features) @ self.weights
        return (raw - self.length_slope * log_lengths - self.offset) / self.scale

    def tensors(self) -> dict[str, Tensor]:
        """What a folder stores."""
        numbers = torch.tensor([self.length_slope, self.offset, self.scale, self.l2], dtype=torch.float32)
        return {
            "mean": self.standardisation.mean,
            "deviation": self.standardisation.deviation,
            "weights": self.weights,
            "numbers": numbers,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], num_features: int) -> Self:
        """The inverse of `tensors`. Raises `BadCheckpoint("format")` for other names or shapes."""
        expected = {"mean": (num_features,), "deviation": (num_features,), "weights": (num_features,), "numbers": (4,)}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != expected:
            raise BadCheckpoint("format", f"the head has tensors {found}, expected {expected}")
        standardisation = Standardisation(tensors["mean"], tensors["deviation"])
        return cls(standardisation, tensors["weights"], *tensors["numbers"].tolist())


def fit_head(
    chosen: Float[Tensor, "N C F"],
    rejected: Float[Tensor, "N C F"],
    log_lengths: Float[Tensor, "N 2 C"],
    *,
    l2: Sequence[float],
    length_control: float,
    seed: int,
    start: LinearHead | None = None,
) -> tuple[LinearHead, Float[Tensor, " N"]]:
    """Fit on N pairs read at C cuts; the last cut is the longest.

    `length_control` in [0, 1] is the share of the score's slope on log(tokens) that is taken out: at 1 a longer answer
    is worth nothing by itself. With `start` the weights are drawn towards that head's, in its standardisation, so that
    new pairs change what they speak of and no more. Returns the head and the cross-validated margin of every pair at
    the last cut, length left in.
    """
    answers = torch.stack([chosen, rejected], dim=1)  # (N, 2, C, F)
    num_pairs, _, num_cuts, num_features = answers.shape
    standardisation = Standardisation.of(answers.reshape(-1, num_features)) if start is None else start.standardisation
    towards = None if start is None else start.weights
    z = standardisation.apply(answers)
    differences = (z[:, 0] - z[:, 1]).transpose(0, 1).reshape(-1, num_features)  # (C * N, F), cut by cut
    fold = bradley_terry.folds(num_pairs, NUM_FOLDS, seed).repeat(num_cuts)
    best = bradley_terry.choose_l2(differences, fold, l2, towards)
    weights = bradley_terry.fit(differences, best, towards)
    slope = length_control * _slope((z @ weights).flatten(), log_lengths.flatten())
    scores = z @ weights - slope * log_lengths
    head = LinearHead(standardisation, weights, slope, float(scores.mean()), float(scores.std()) + 1e-6, best)
    return head, bradley_terry.cross_validated_margins(differences, best, fold, towards)[-num_pairs:]


def _slope(scores: Tensor, log_lengths: Tensor) -> float:
    """Least-squares slope of the scores on the lengths."""
    centred = log_lengths - log_lengths.mean()
    return float((centred * scores).sum() / centred.square().sum().clamp(min=1e-6))
