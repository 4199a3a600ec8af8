"""What the algorithms besides PPO pull the proxy towards."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from proxy_model.decision.policy import ProxyPolicy
from tests.trainer.test_ppo import new_policy, random_batch
from trainer.advantages import RunningMoments, whiten
from trainer.algorithm_config import AlgorithmName, LikelihoodConfig, RlooConfig
from trainer.algorithms import ALGORITHMS
from trainer.algorithms.likelihood import effective_share, exponential_weights, filtered, standardised
from trainer.algorithms.optimisation import make_optimizer
from trainer.algorithms.units import Units
from trainer.batch import PpoBatch
from trainer.targets import Targets

RETURNS = torch.tensor([2.0, -1.0, 0.5, 0.0, -1.5, 0.0])
"""Of six answers, two to each of three prompts."""


def targets_for(batch: PpoBatch, policy: ProxyPolicy, group_size: int = 2) -> Targets:
    with torch.no_grad():
        values = policy.values(batch.hidden)
    of_positions = batch.to_positions(RETURNS)
    return Targets(
        advantages=of_positions - values,
        returns=of_positions,
        old_values=values,
        penalties=torch.zeros_like(of_positions),
        answer_returns=RETURNS,
        group_size=group_size,
    )


@torch.no_grad()
def answer_logprobs(policy: ProxyPolicy, batch: PpoBatch) -> Tensor:
    """(B,) log-probability of each answer's free decisions."""
    units = Units.of(batch, "position")
    _, logprobs = units.evaluate(policy, torch.ones(units.num_units, dtype=torch.bool))
    of_positions = torch.zeros(batch.num_positions).index_add(0, units.position, logprobs)
    return batch.per_answer(of_positions)


def changes(name: AlgorithmName, config: Any, group_size: int = 2) -> tuple[Tensor, dict[str, float]]:
    """How far each answer's log-probability moved in one update, and the statistics that are not zero."""
    policy = new_policy(8)
    batch = random_batch(policy)
    before = answer_logprobs(policy, batch)
    optimizer = make_optimizer(policy, config.learning_rate)
    statistics = ALGORITHMS[name](policy, optimizer, batch, targets_for(batch, policy, group_size), config, 5)
    return answer_logprobs(policy, batch) - before, {
        key: getattr(statistics, key) for key in statistics.__slots__ if getattr(statistics, key)
    }


def test_rloos_first_step_weighs_each_answer_by_its_lead_over_the_prompts_other_one() -> None:
    policy = new_policy(8)
    batch = random_batch(policy)
    units = Units.of(batch, "position")
    leads = torch.tensor([3.0, -3.0, 0.5, -0.5, -1.5, 1.5])  # of RETURNS, in pairs
    advantages = whiten(batch.to_positions(leads)[units.position])
    _, logprobs = units.evaluate(policy, torch.ones(units.num_units, dtype=torch.bool))
    loss = -(advantages * logprobs).mean()
    by_hand = torch.stack([each.norm() for each in torch.autograd.grad(loss, list(policy.actor.parameters()))]).norm()

    _, statistics = changes("rloo", RlooConfig(minibatches=1, epochs=1))

    assert statistics["actor_grad_norm"] == pytest.approx(float(by_hand), rel=1e-4)


def test_rloo_stops_at_its_kl() -> None:
    _, statistics = changes("rloo", RlooConfig(learning_rate=3e-2, minibatches=2, epochs=9, target_kl=0.01))

    assert statistics["policy_epochs"] < 9
    assert statistics["approx_kl"] > 0.01


def test_the_filter_keeps_good_answers_and_the_best_of_each_prompt() -> None:
    z = torch.tensor([2.0, 1.25, -0.5, -1.0, -0.25, -0.25, 0.75, 1.5])

    assert filtered(z, 2, threshold=1.0).tolist() == [1, 1, 1, 0, 0, 0, 0, 1]  # a tie has no best
    assert filtered(z, 1, threshold=0.5).tolist() == [1, 1, 0, 0, 0, 0, 1, 1]


def test_z_leaves_out_how_hard_a_prompt_is() -> None:
    targets = targets_for(random_batch(new_policy(8)), new_policy(8))

    compared = replace(targets, baseline="mean", return_moments=RunningMoments(count=4, mean=0.5, squares=16.0))

    assert compared.compared_returns.tolist() == [1.5, -1.5, 0.25, -0.25, -0.75, 0.75]
    assert compared.z.tolist() == [0.5, -1.0, -0.125, -0.375, -0.625, 0.125]  # less .5, by 2


def test_z_is_among_the_answers_of_one_policy() -> None:
    """Online those of the batch: mean 0, deviation sqrt(7.5 / 6). Offline those of the folder."""
    moments = RunningMoments(count=4, mean=0.5, squares=16.0)
    targets = replace(targets_for(random_batch(new_policy(8)), new_policy(8)), return_moments=moments)

    assert targets.z_of_policy.tolist() == pytest.approx([each / 1.118034 for each in RETURNS.tolist()], rel=1e-5)
    assert replace(targets, is_of_data=True).z_of_policy.tolist() == [0.75, -0.75, 0.0, -0.25, -1.0, -0.25]


def test_exponential_weights_are_bounded_before_their_mean_is_made_one() -> None:
    weights = exponential_weights(torch.tensor([0.0, 2.0, 9.0]), beta=2.0, max_weight=5.0)

    assert weights.tolist() == pytest.approx([3 / 8.71828, 3 * 2.71828 / 8.71828, 15 / 8.71828], rel=1e-4)


@pytest.mark.parametrize(("weights", "share"), [([1.0, 1.0, 1.0, 1.0], 1.0), ([0.0, 3.0, 0.0, 0.0], 0.25)])
def test_the_effective_share_counts_what_has_a_say(weights: list[float], share: float) -> None:
    assert float(effective_share(torch.tensor(weights))) == pytest.approx(share)


def test_equal_returns_have_no_deviation() -> None:
    assert standardised(torch.full((3,), 7.0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["mle", "rwr", "awr"])
def test_likelihood_makes_the_best_answer_likelier_than_the_worst(name: AlgorithmName) -> None:
    moved, statistics = changes(name, LikelihoodConfig(learning_rate=3e-4, epochs=3, minibatches=1))

    assert moved[0] > 0
    assert moved[0] > moved[4]
    assert 0 < statistics["effective_samples"] < 1
    assert ("value_loss" in statistics) is (name == "awr")


def test_answers_that_are_filtered_out_teach_nothing() -> None:
    policy = new_policy(8)
    batch = random_batch(policy)
    targets = replace(targets_for(batch, policy, group_size=1), answer_returns=torch.zeros(6))
    before = [each.clone() for each in policy.parameters()]

    config = LikelihoodConfig(threshold=0.5)
    ALGORITHMS["mle"](policy, make_optimizer(policy, 1e-2), batch, targets, config, 5)

    assert all(torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))


@pytest.mark.parametrize("name", ["mle", "rwr", "awr"])
def test_the_kl_of_an_update_is_one_whoever_has_answered(name: AlgorithmName) -> None:
    """Of decisions that the old policy would hardly have taken a mean of ratio - 1 - log ratio is in the thousands."""
    policy = new_policy(8)
    batch = random_batch(policy)
    old = torch.where(batch.is_accept, -9.0, 9.0) * batch.is_free
    units = Units.of(batch, "position")
    with torch.no_grad():
        new, _ = units.evaluate(policy, torch.ones(units.num_units, dtype=torch.bool))
    kls = kl_divergence(Bernoulli(logits=old[units.decisions]), Bernoulli(logits=new))
    config = LikelihoodConfig(minibatches=1, epochs=1)

    statistics = ALGORITHMS[name](
        policy, make_optimizer(policy, 1e-3), replace(batch, old_logits=old), targets_for(batch, policy), config, 5
    )

    assert statistics.approx_kl == pytest.approx(float(kls.sum()) / units.num_units, rel=1e-4)
