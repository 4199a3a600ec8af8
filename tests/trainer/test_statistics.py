import math

import pytest
import torch

from proxy_model.errors import InvalidParameter
from trainer.evaluation.statistics import bootstrap, deviation, outcomes, wilson_interval, win_rate


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

    interval = bootstrap(values, seed=3)

    assert interval.estimate == pytest.approx(float(values.mean()))
    assert interval.low == pytest.approx(interval.estimate - half_width, abs=0.01)
    assert interval.high == pytest.approx(interval.estimate + half_width, abs=0.01)
    assert interval == bootstrap(values, seed=3)
    assert interval != bootstrap(values, seed=4)


def test_bootstrap_of_equal_differences_has_no_width() -> None:
    interval = bootstrap([0.25, 0.25, 0.25])

    assert (interval.low, interval.estimate, interval.high) == (0.25, 0.25, 0.25)


def test_outcomes_of_several_seeds_are_held_against_the_same_baseline() -> None:
    baseline = torch.tensor([1.0, 2.0, 3.0])

    found = outcomes(torch.tensor([[1.5, 2.0, 2.0], [0.0, 3.0, 4.0]]), baseline)

    assert found.tolist() == [[1.0, 0.5, 0.0], [0.0, 1.0, 1.0]]


def test_the_interval_of_seeds_that_differ_is_that_of_drawing_seeds() -> None:
    """Two seeds, each the same on all prompts: a sample is 0, 1 or 2 times the good seed, at odds 1:2:1."""
    interval = bootstrap(torch.tensor([[0.0] * 50, [1.0] * 50]), seed=1)

    assert interval.estimate == 0.5
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_the_interval_of_seeds_that_agree_is_that_of_one_seed() -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    one, three = bootstrap(values, seed=5), bootstrap(values.expand(3, 200), seed=5)

    assert (three.low, three.high) == pytest.approx((one.low, one.high))


def test_deviation_over_seeds_divides_by_one_less() -> None:
    assert deviation([1.0, 2.0, 6.0]) == pytest.approx(7**0.5)
    assert deviation([3.0]) == 0.0
