import pytest
import torch

from trainer.advantages import (
    RunningMoments,
    explained_variance,
    generalised_advantages,
    normalise,
    position_rewards,
    whiten,
)


def test_running_moments_of_two_batches_are_those_of_all_scores() -> None:
    moments = RunningMoments().updated(torch.tensor([1.0, 2.0, 6.0])).updated(torch.tensor([7.0]))

    assert moments.count == 4
    assert moments.mean == pytest.approx(4.0)
    assert moments.deviation == pytest.approx((26 / 4) ** 0.5)


def test_scores_that_never_differ_are_not_blown_up() -> None:
    moments = RunningMoments().updated(torch.full((5,), 0.1))

    assert normalise(torch.tensor([0.1]), moments, 5.0).tolist() == pytest.approx([0.0], abs=1e-6)
    assert moments.deviation == 1.0


@pytest.mark.parametrize(("clip", "expected"), [(5.0, [-0.5, 5.0]), (0.8, [-0.5, 0.8]), (0.0, [-0.5, 10.0])])
def test_normalised_scores_are_clipped_in_deviations(clip: float, expected: list[float]) -> None:
    moments = RunningMoments(count=2, mean=2.0, squares=8.0)

    assert normalise(torch.tensor([1.0, 22.0]), moments, clip).tolist() == pytest.approx(expected)


def test_the_terminal_reward_lands_on_each_answers_last_position() -> None:
    rewards = position_rewards(
        torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0, 1.0]), torch.tensor([2, 1]), weight=0.1
    )

    assert rewards.tolist() == pytest.approx([-0.05, 2.8, -1.1])


def test_generalised_advantages_match_numbers_by_hand() -> None:
    rewards, values = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.5, 1.0, 0.25])

    advantages = generalised_advantages(rewards, values, torch.tensor([3]), discount=0.9, lam=0.8)

    assert advantages.tolist() == pytest.approx([1.7492, 0.485, 1.75])


def test_answers_of_other_lengths_do_not_leak_into_each_other() -> None:
    rewards = torch.tensor([7.0, 1.0, 0.0, 2.0, -3.0, 4.0])
    values = torch.tensor([2.0, 0.5, 1.0, 0.25, 1.5, -1.0])

    together = generalised_advantages(rewards, values, torch.tensor([1, 3, 2]), discount=0.9, lam=0.8)

    assert together.tolist() == pytest.approx([5.0, 1.7492, 0.485, 1.75, -5.4 + 0.72 * 5.0, 5.0])


def test_with_lambda_one_the_value_target_is_the_reward_to_go() -> None:
    rewards, values = torch.tensor([1.0, -0.5, 2.0, 4.0]), torch.tensor([0.3, 8.0, -1.0, 2.0])

    advantages = generalised_advantages(rewards, values, torch.tensor([3, 1]), discount=1.0, lam=1.0)

    assert (values + advantages).tolist() == pytest.approx([2.5, 1.5, 2.0, 4.0])


def test_whitened_advantages_have_mean_zero_and_deviation_one() -> None:
    whitened = whiten(torch.tensor([1.0, 2.0, 6.0]))

    assert whitened.tolist() == pytest.approx([-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5])


def test_one_advantage_alone_says_nothing() -> None:
    assert whiten(torch.tensor([3.0])).tolist() == [0.0]


def test_explained_variance_is_what_the_values_leave_over() -> None:
    returns = torch.tensor([0.0, 4.0])

    assert explained_variance(torch.tensor([0.0, 2.0]), returns) == pytest.approx(0.75)
    assert explained_variance(torch.tensor([4.0, 0.0]), returns) == pytest.approx(-3.0)
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.ones(2)) == 0.0
