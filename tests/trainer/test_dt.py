"""The decision transformer: what it learns from, and that its dial is connected to what it learnt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proxy_model.decision.features import target_scalars
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.versions.registry import ProxyRegistry
from tests.trainer.runs import LengthReward, parts_in_miniature, small_config
from tests.trainer.test_ppo import new_policy, random_batch
from trainer.advantages import RunningMoments
from trainer.algorithm_config import DtConfig
from trainer.algorithms import dt
from trainer.algorithms.optimisation import make_optimizer
from trainer.algorithms.units import Units
from trainer.batch import PpoBatch
from trainer.loop import Supervision, train
from trainer.rewards.weighted import WeightedReward, WeightedTerm
from trainer.run import Run
from trainer.targets import Targets


def conditioned_policy() -> ProxyPolicy:
    config = replace(new_policy(8).config, is_conditioned=True)
    return ProxyPolicy(config, generator=torch.Generator().manual_seed(3))


def targets_of(batch: PpoBatch, answer_returns: Tensor) -> Targets:
    nothing = torch.zeros(batch.num_positions)
    moments = RunningMoments().updated(answer_returns)
    return Targets(
        advantages=nothing,
        returns=nothing,
        old_values=nothing,
        penalties=nothing,
        answer_returns=answer_returns,
        return_moments=moments,
    )


def acceptance(policy: ProxyPolicy, batch: PpoBatch, target: float | None) -> float:
    """Mean over the free decisions of what a policy that is told `target` would do."""
    told = target_scalars([target] * batch.lengths.numel())
    units = Units.of(replace(batch, target=told), "position")
    with torch.no_grad():
        logits, _ = units.evaluate(policy, torch.ones(units.num_units, dtype=torch.bool))
    return float(logits.sigmoid().mean())


def test_z_is_the_return_in_deviations_over_the_run_and_ends_at_four() -> None:
    batch = random_batch(new_policy(8), num_answers=3)
    targets = targets_of(batch, torch.tensor([5.0, -1.0, 21.0]))

    moments = RunningMoments(count=4, mean=1.0, squares=16.0)  # deviation 2

    assert replace(targets, return_moments=moments).z.tolist() == [2.0, -1.0, 4.0]


def test_hindsight_tells_the_return_or_nothing() -> None:
    z, is_told = torch.tensor([1.5, -2.0, 0.0]), torch.tensor([True, False, True])

    assert dt.hindsight(z, is_told).tolist() == [[1.5, 1.0], [0.0, 0.0], [0.0, 1.0]]


def test_answers_aim_at_nothing_first_and_then_at_the_upper_half_of_a_normal_distribution() -> None:
    config = DtConfig(untold_iterations=2)

    assert dt.aims(3, 1, config, seed=4) == [None, None, None]
    later = dt.aims(4000, 2, config, seed=4)
    assert later == dt.aims(4000, 9, config, seed=4)
    assert later != dt.aims(4000, 2, config, seed=5)
    values = torch.tensor([each for each in later if each is not None])
    assert len(values) == 4000
    assert float(values.min()) >= 0
    assert float(values.max()) <= 4
    assert float(values.mean()) == pytest.approx((2 / torch.pi) ** 0.5, abs=0.03)


def test_a_positions_part_of_the_batch_is_told_what_its_answer_was() -> None:
    batch = random_batch(new_policy(8), num_answers=3)
    batch = replace(batch, target=target_scalars([2.0, None, -1.0]))

    of_positions = batch.to_positions(batch.target)

    assert of_positions[: batch.lengths[0]].tolist() == [[2.0, 1.0]] * 5
    assert of_positions[5 : 5 + batch.lengths[1]].tolist() == [[0.0, 0.0]] * 6
    assert of_positions[11:].tolist() == [[-1.0, 1.0]] * 7


def test_the_first_step_follows_the_likelihood_given_the_returns() -> None:
    policy = conditioned_policy()
    batch = random_batch(policy)
    targets = targets_of(batch, torch.tensor([2.0, -1.0, 0.5, 0.0, -1.5, 0.0]))
    mean, deviation = 0.0, (7.5 / 6) ** 0.5
    told = target_scalars([(each - mean) / deviation for each in (2.0, -1.0, 0.5, 0.0, -1.5, 0.0)])
    units = Units.of(replace(batch, target=told), "position")
    _, logprobs = units.evaluate(policy, torch.ones(units.num_units, dtype=torch.bool))
    gradients = torch.autograd.grad(-logprobs.mean(), list(policy.actor.parameters()))
    by_hand = torch.stack([each.norm() for each in gradients]).norm()

    config = DtConfig(minibatches=1, epochs=1, untold_share=0.0)
    statistics = dt.update(policy, make_optimizer(policy, 1e-3), batch, targets, config, 5)

    assert statistics.policy_loss == pytest.approx(-float(logprobs.detach().mean()), rel=1e-5)
    assert statistics.actor_grad_norm == pytest.approx(float(by_hand), rel=1e-4)


@pytest.mark.parametrize(("untold_share", "is_moved"), [(0.0, True), (0.999999, False)])
def test_answers_that_are_not_told_their_return_do_not_move_the_dial(untold_share: float, is_moved: bool) -> None:
    policy = conditioned_policy()
    batch = random_batch(policy)
    before = policy.get_parameter("actor.target.weight").clone()

    config = DtConfig(untold_share=untold_share)
    dt.update(policy, make_optimizer(policy, 1e-2), batch, targets_of(batch, torch.arange(6.0)), config, 5)

    assert torch.equal(before, policy.get_parameter("actor.target.weight")) is not is_moved


def test_a_high_target_brings_what_high_returns_had_and_no_target_lies_between() -> None:
    policy = conditioned_policy()
    batch = random_batch(policy, num_answers=40)
    rejects = batch.per_answer(batch.per_position((~batch.is_accept).float())) / batch.lengths
    optimizer = make_optimizer(policy, 1e-2)
    config = DtConfig(epochs=30, minibatches=4)

    statistics = dt.update(policy, optimizer, batch, targets_of(batch, rejects), config, 5)

    low, untold, high = (acceptance(policy, batch, target) for target in (-1.5, None, 1.5))
    assert high + 0.05 < untold < low - 0.05
    assert statistics.dial_effect > 0.1
    assert statistics.dial_effect == pytest.approx(float(dt.dial_effect(policy, batch)))


def test_the_effect_of_a_dial_that_only_shifts_the_logit_is_the_difference_of_two_sigmoids() -> None:
    policy = conditioned_policy()
    with torch.no_grad():
        for parameter in policy.actor.parameters():
            parameter.zero_()
        policy.get_parameter("actor.target.weight")[0, 0] = 10.0
        policy.get_parameter("actor.output.weight")[0, 0] = 0.2  # silu(10) is 9.99955 and silu(-10) -0.00045

    effect = float(dt.dial_effect(policy, random_batch(policy)))

    assert effect == pytest.approx(0.880787 - 0.499977, abs=1e-4)


class _Brevity(LengthReward):
    """Shorter is better."""

    def score(self, conversations: object) -> Tensor:
        return -super().score(conversations)  # type: ignore[arg-type]


def test_a_run_publishes_a_conditioned_proxy_that_resumes_to_the_bit(tmp_path: Path) -> None:
    settings = DtConfig(default_target_return=2.0, untold_iterations=1)
    brevity = WeightedReward((WeightedTerm(name="brevity", weight=1.0, model=_Brevity()),))
    parts = replace(parts_in_miniature(), reward_model=brevity)
    whole = small_config(tmp_path / "whole", iterations=4, algorithm="dt", dt=settings)
    broken = replace(whole, output=tmp_path / "broken")
    seen = 0

    def after_two() -> bool:
        nonlocal seen
        seen += 1
        return seen > 2

    unbroken = train(whole, parts=parts)
    assert not train(broken, parts=parts, supervision=Supervision(must_stop=after_two)).is_done
    resumed = train(broken, parts=parts, is_resumed=True)

    for name, tensor in unbroken.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name]), name
    config = ProxyRegistry(whole.registry_folder).verify(unbroken.published[-1]).policy.config
    assert config.is_conditioned
    assert config.default_target_return == 2.0
    assert unbroken.metrics["update/dial_effect"] > 0


def test_a_run_tells_its_answers_what_to_aim_at_from_the_second_iteration_on(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=2, algorithm="dt")
    run = Run.start(config, parts_in_miniature(), is_resumed=False)
    told = []
    for _ in range(2):
        told.append([each.target_return for each in run._roll_out().trajectories])
        run.iterate()

    assert told[0] == [None] * 16
    assert None not in told[1]
    assert len(set(told[1])) == 16
    assert run.progress.return_moments.count == 32
