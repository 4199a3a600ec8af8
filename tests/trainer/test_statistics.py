import math

import pytest
import torch

from proxy_model.errors import InvalidParameter
from trainer.evaluation.statistics import paired_bootstrap, wilson_interval, win_rate


@pytest.mark.parametrize(
    ("successes", "num_trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # the textbook example of Wilson's interval
        (0, 20, 0.0, 0.1611),
        (192, 300, 0.5843, 0.6922),
    ],
)
def test_wilson_bounds_agree_with_published_values(successes: int, num_trials: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, num_trials)

    assert interval.estimate == successes / num_trials
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize(("successes", "num_trials"), [(1, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(successes: int, num_trials: int) -> None:
    with pytest.raises(InvalidParameter):
        wilson_interval(successes, num_trials)


def test_ties_count_half_a_win() -> None:
    won = win_rate([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 5.0, 1.0])

    assert (won.wins, won.ties, won.losses) == (2, 1, 1)
    assert won.interval.estimate == 0.625


def test_bootstrap_bounds_of_a_normal_sample_are_those_of_the_normal_law() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    half_width = 1.96 * float(values.std()) / math.sqrt(400)

    interval = paired_bootstrap(values, seed=3)

    assert interval.estimate == pytest.approx(float(values.mean()))
    assert interval.low == pytest.approx(interval.estimate - half_width, abs=0.01)
    assert interval.high == pytest.approx(interval.estimate + half_width, abs=0.01)
    assert interval == paired_bootstrap(values, seed=3)
    assert interval != paired_bootstrap(values, seed=4)


def test_bootstrap_of_equal_differences_has_no_width() -> None:
    interval = paired_bootstrap([0.25, 0.25, 0.25])

    assert (interval.low, interval.estimate, interval.high) == (0.25, 0.25, 0.25)
