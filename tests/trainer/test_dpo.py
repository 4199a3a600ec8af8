"""What `dpo` and `value` pull the proxy towards."""

import math
from dataclasses import replace

import pytest
import torch

from proxy_model.decision.config import PolicyConfig
from proxy_model.decision.features import DecisionFeatures
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import InvalidParameter
from tests.trainer.test_algorithms import answer_logprobs, targets_for
from tests.trainer.test_ppo import new_policy, random_batch
from tests.trainer.trajectories import trajectory_by_hand
from trainer.algorithm_config import DpoConfig, OfflineConfig, ValueConfig
from trainer.algorithms import ALGORITHMS
from trainer.algorithms.dpo import preference_loss
from trainer.algorithms.optimisation import make_optimizer
from trainer.algorithms.units import changed_decisions
from trainer.algorithms.value import predicted_gaps
from trainer.batch import PpoBatch, action_logprobs, flatten
from trainer.offline.calibration import RateSearch, shifted_to
from trainer.offline.reference import under_reference
from trainer.targets import Targets


def constant_policy(logit: float) -> ProxyPolicy:
    """Accepts every candidate alike."""
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=2, hidden_size=4))
    with torch.no_grad():
        policy.actor.output.weight.zero_()
        policy.actor.output.bias.fill_(logit)
    return policy


def batch_by_hand() -> PpoBatch:
    """Two answers: at position 0 one free reject at logit .75, at position 1 a free accept at logit 2."""
    return flatten([trajectory_by_hand(), trajectory_by_hand()], torch.arange(16.0).view(8, 2))


def test_the_preference_loss_is_that_of_the_margin() -> None:
    ratios = torch.tensor([[1.0, 0.5], [0.25, 0.75]])

    by_hand = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(1.0))) / 2  # margins .5 and -.5, beta 2

    assert float(preference_loss(ratios, beta=2.0)) == pytest.approx(by_hand)


@pytest.mark.parametrize("per_position", [True, False])
def test_the_first_step_of_dpo_has_the_gradient_of_its_formula(per_position: bool) -> None:
    """At the reference every margin is 0 and sigma is one half: the gradient is -beta / 2 of the mean margin's."""
    policy = new_policy(8)
    batch = under_reference(random_batch(policy), policy)
    free_positions = batch.per_answer((batch.per_position(torch.ones_like(batch.old_logits)) > 0).float())
    units = batch.is_free.nonzero().squeeze(1)
    logits = policy.accept_logits(
        DecisionFeatures(batch.hidden[batch.position[units]], batch.candidate[units], batch.scalars[units])
    )
    of_decisions = action_logprobs(logits, batch.is_accept[units])
    of_positions = torch.zeros(batch.num_positions).index_add(0, batch.position[units], of_decisions)
    of_answers = batch.per_answer(of_positions) / (free_positions if per_position else 1)
    loss = -0.5 * 3.0 * (of_answers[0::2] - of_answers[1::2]).mean()
    by_hand = torch.stack([each.norm() for each in torch.autograd.grad(loss, list(policy.actor.parameters()))]).norm()

    config = DpoConfig(beta=3.0, epochs=1, minibatches=1, per_position=per_position)
    statistics = ALGORITHMS["dpo"](policy, make_optimizer(policy, 1e-3), batch, targets_for(batch, policy), config, 5)

    assert statistics.actor_grad_norm == pytest.approx(float(by_hand), rel=1e-4)
    assert statistics.policy_loss == pytest.approx(math.log(2), rel=1e-4)


def test_dpo_prefers_the_first_answer_of_each_pair() -> None:
    policy = new_policy(8)
    batch = under_reference(random_batch(policy), policy)
    before = answer_logprobs(policy, batch)

    config = DpoConfig(learning_rate=1e-2, epochs=30, minibatches=1)
    statistics = ALGORITHMS["dpo"](policy, make_optimizer(policy, 1e-2), batch, targets_for(batch, policy), config, 5)

    moved = answer_logprobs(policy, batch) - before
    assert bool((moved[0::2] > moved[1::2]).all())
    assert statistics.pair_accuracy == 1.0
    assert 0 < statistics.changed_decisions < 1


def test_pairs_without_a_free_decision_teach_nothing() -> None:
    policy = new_policy(8)
    batch = random_batch(policy)
    forced = replace(batch, is_free=torch.zeros_like(batch.is_free))
    before = [each.clone() for each in policy.parameters()]

    statistics = ALGORITHMS["dpo"](
        policy, make_optimizer(policy, 1e-2), forced, targets_for(forced, policy), DpoConfig(), 5
    )

    assert all(torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))
    assert statistics.changed_decisions == 0


@pytest.mark.parametrize(("logit", "share"), [(0.3, 0.0), (-0.3, 1.0)])
def test_changed_decisions_are_those_on_the_other_side_of_one_half(logit: float, share: float) -> None:
    assert changed_decisions(constant_policy(logit), batch_by_hand()) == share


def test_the_reference_decides_in_place_of_whoever_did() -> None:
    batch = under_reference(batch_by_hand(), constant_policy(0.4))

    free = [True, False, True] * 2
    assert batch.old_logits.tolist() == pytest.approx([0.4 if each else 0.0 for each in free])


def test_value_predicts_returns_by_position_and_candidate() -> None:
    """Two tokens at the same state, one worth 1, the other -1: V(s) is 0, the gaps are +1 and -1."""
    good, bad = trajectory_by_hand(), trajectory_by_hand()
    ranks = torch.tensor([1, 0]), torch.tensor([0, 0])
    batch = flatten(
        [replace(good, ranks=ranks[0]), replace(bad, ranks=ranks[1])],
        torch.randn(8, 2, generator=torch.Generator().manual_seed(1)),
    )
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=2, hidden_size=16), generator=torch.Generator().manual_seed(2))
    targets = replace(targets_for_two(batch), returns=torch.tensor([1.0, 0.0, -1.0, 0.0]))
    config = ValueConfig(learning_rate=1e-2, epochs=300, minibatches=1, temperature=0.5, margin=0.25, max_grad_norm=5.0)

    statistics = ALGORITHMS["value"](policy, make_optimizer(policy, 1e-2), batch, targets, config, 5)

    accepted = batch.is_accept.nonzero().squeeze(1)
    gaps = predicted_gaps(policy, batch, accepted, config).detach()
    assert gaps[0] == pytest.approx(1.0, abs=0.15)
    assert gaps[2] == pytest.approx(-1.0, abs=0.15)
    assert policy.values(batch.hidden)[0].item() == pytest.approx(0.0, abs=0.15)
    logits = (gaps + 0.25) / 0.5
    assert bool(logits[0] > 0)
    assert not bool(logits[2] > 0)
    assert statistics.changed_decisions > 0


def targets_for_two(batch: PpoBatch) -> Targets:
    """Nothing to learn."""
    zeros = torch.zeros(batch.num_positions)
    return Targets(
        advantages=zeros,
        returns=zeros,
        old_values=zeros,
        penalties=zeros,
        answer_returns=torch.zeros(2),
        group_size=1,
    )


def test_a_shift_puts_the_threshold_at_the_quantile() -> None:
    policy = constant_policy(1.5)
    logits = torch.tensor([1.0, 1.5, 2.0, 4.0, 5.0])

    shifted = shifted_to(policy, logits, 0.5)

    assert shifted.actor.output.bias.item() == pytest.approx(1.5 - 2.0)
    assert policy.actor.output.bias.item() == 1.5


def test_a_search_finds_the_share_where_the_rate_leaps() -> None:
    """A rate that rises with the 2.8th power of the share, as one that was served: .04 had .032 and .15 had 1.245."""
    search, share = RateSearch(0.12), 0.04

    first = share = search.after(share, 0.032)
    second = share = search.after(share, 1.245)
    for _ in range(3):
        share = search.after(share, 0.032 * (share / 0.04) ** 2.8)

    assert first == pytest.approx(0.15)
    assert second == pytest.approx(0.04 * 3.75**0.361, rel=1e-3)  # log(.12 / .032) / log(1.245 / .032)
    assert 0.032 * (share / 0.04) ** 2.8 == pytest.approx(0.12, rel=0.02)


def test_a_search_goes_on_from_no_rejection_at_all_and_not_past_every_candidate() -> None:
    search = RateSearch(0.5)

    assert search.after(0.1, 0.0) == pytest.approx(0.4)
    assert search.after(0.4, 0.0) == 1.0


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (DpoConfig, {"beta": 0.0}),
        (DpoConfig, {"learning_rate": 0.0}),
        (ValueConfig, {"temperature": 0.0}),
        (ValueConfig, {"margin": -0.1}),
        (ValueConfig, {"value_weight": -1.0}),
        (OfflineConfig, {"rejections_per_token": 1.0}),
    ],
)
def test_settings_have_their_ranges(kind: type, changes: dict[str, float]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(changes))):
        kind(**changes)
