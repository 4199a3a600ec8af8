"""How good a reward model is: accuracy on held-out pairs beside what needs no model, and what length does to it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from trainer.evaluation.statistics import Interval, wilson_interval
from trainer.rewards.bradley_terry import calibration_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Share of held-out pairs that a scorer orders as people did; ties count half."""

    name: str
    num_pairs: int
    interval: Interval
    calibration_error: float | None = None
    """Of sigma(margin) as a chance, by `bradley_terry.calibration_error`; the units of the score decide it, too.
    None: the scores are no log-odds, as those of a baseline."""

    @classmethod
    def of(cls, name: str, margins: Tensor, *, is_calibrated: bool = False) -> "Accuracy":
        """From (N,) score(chosen) - score(rejected); `is_calibrated` has the error of these as log-odds told, too."""
        right = float((margins > 0).sum()) + float((margins == 0).sum()) / 2
        return cls(
            name=name,
            num_pairs=margins.numel(),
            interval=wilson_interval(right, margins.numel()),
            calibration_error=calibration_error(margins) if is_calibrated else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReport:
    """What a training run of a reward model found."""

    kind: str
    num_train_pairs: int
    cross_validated: float
    """Accuracy on the training pairs under weights that were fitted without them, length left in."""

    l2: float
    length_correlation: float
    """Of score and log(length) over the held-out answers (the training answers when there are none)."""

    seconds: float
    accuracies: tuple[Accuracy, ...] = field(default=())
    num_learnt_test_pairs: int = 0
    """Of the held-out pairs those that are training pairs, too, in whichever order."""

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    def table(self) -> Table:
        """One row per scorer."""
        found = f"cross-validated {self.cross_validated:.1%}, l2 {self.l2:g}"
        title = f"{self.kind}: {self.num_train_pairs} training pairs, {found}"
        caption = f"correlation of score and log(length) {self.length_correlation:+.2f}; {self.seconds:.0f} s"
        if self.num_learnt_test_pairs:
            caption += f"\nwarning: {self.num_learnt_test_pairs} of the held-out pairs were learnt from"
        table = Table(title=title, caption=caption)
        table.add_column("held-out accuracy of")
        for name in ("pairs", "accuracy", "95 % interval", "calibration error"):
            table.add_column(name, justify="right")
        for row in self.accuracies:
            bounds = f"{row.interval.low:.1%} to {row.interval.high:.1%}"
            error = "" if row.calibration_error is None else f"{row.calibration_error:.3f}"
            table.add_row(row.name, str(row.num_pairs), f"{row.interval.estimate:.1%}", bounds, error)
        return table


def correlation(first: Tensor | Sequence[float], second: Tensor | Sequence[float]) -> float:
    """Pearson's, 0 when one side does not vary."""
    pair = torch.stack([torch.as_tensor(first, dtype=torch.float64), torch.as_tensor(second, dtype=torch.float64)])
    centred = pair - pair.mean(dim=1, keepdim=True)
    norms = centred.norm(dim=1)
    return float(centred[0] @ centred[1] / (norms[0] * norms[1])) if bool((norms > 0).all()) else 0.0
