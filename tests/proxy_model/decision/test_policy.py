"""The proxy: what it starts as, what it costs, and that its look-up table is its matmul."""

from dataclasses import replace

import pytest
import torch

from proxy_model.decision.bank import LoadedProxy, ProxyRef
from proxy_model.decision.config import FeatureMode, PolicyConfig, SkamConfig
from proxy_model.decision.features import DecisionFeatures, slate_scalars, target_scalars
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.skam import Slate
from proxy_model.errors import InvalidParameter
from tests.conftest import steering_policy


def _features(size: int, num: int = 50) -> DecisionFeatures:
    generator = torch.Generator().manual_seed(2)
    return DecisionFeatures(
        torch.randn(num, size, generator=generator) * 7,
        torch.randn(num, size, generator=generator),
        torch.rand(num, 4, generator=generator),
    )


@pytest.mark.parametrize("mode", ["prefix", "candidate", "both"])
def test_a_new_proxy_accepts_with_the_initial_probability(mode: FeatureMode) -> None:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=64, features=mode, initial_acceptance=0.9))

    acceptance = policy.accept_logits(_features(64)).detach().sigmoid()

    assert float((acceptance - 0.9).abs().max()) < 0.02


@pytest.mark.parametrize("target", [None, -4.0, 4.0])
def test_a_new_conditioned_proxy_does_so_whatever_it_aims_at(target: float | None) -> None:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=64, is_conditioned=True, initial_acceptance=0.9))

    acceptance = policy.accept_logits(replace(_features(64), target=target_scalars([target] * 50))).detach().sigmoid()

    assert float((acceptance - 0.9).abs().max()) < 0.02
    assert float(policy.get_parameter("actor.target.weight").detach().square().mean()) == pytest.approx(1.0)


def test_the_number_of_parameters_is_two_2_layer_mlps() -> None:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=576, hidden_size=256))

    actor = 576 * 256 + 576 * 256 + 4 * 256 + 256 + 256 + 1
    critic = 576 * 256 + 256 + 256 + 1
    assert sum(parameter.numel() for parameter in policy.parameters()) == actor + critic


def test_a_conditioned_proxy_has_two_more_inputs_and_no_other_weight() -> None:
    plain = PolicyConfig(llm_hidden_size=64, hidden_size=32)
    conditioned = replace(plain, is_conditioned=True)

    shapes = {name: tuple(each.shape) for name, each in ProxyPolicy(plain).state_dict().items()}

    assert {name: tuple(each.shape) for name, each in ProxyPolicy(conditioned).state_dict().items()} == {
        **shapes,
        "actor.target.weight": (32, 2),
    }


def test_a_target_is_read_as_given_and_none_as_two_zeros() -> None:
    assert target_scalars([1.5, None, -4.0, 0.0]).tolist() == [[1.5, 1.0], [0.0, 0.0], [-4.0, 1.0], [0.0, 1.0]]
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=64, is_conditioned=True))
    told, untold = (replace(_features(64), target=target_scalars([each] * 50)) for each in (0.0, None))

    assert torch.equal(policy.accept_logits(untold), policy.accept_logits(_features(64)))
    assert not torch.equal(policy.accept_logits(told), policy.accept_logits(_features(64)))


def test_an_unconditioned_proxy_does_not_read_the_target() -> None:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=64))
    told = replace(_features(64), target=target_scalars([3.0] * 50))

    assert torch.equal(policy.accept_logits(told), policy.accept_logits(_features(64)))


def test_what_is_asked_becomes_what_the_proxy_is_told() -> None:
    plain = PolicyConfig(llm_hidden_size=64)
    dial = PolicyConfig(llm_hidden_size=64, is_conditioned=True, default_target_return=0.5)

    assert (dial.target_return(None), dial.target_return(-2.0), plain.target_return(None)) == (0.5, -2.0, None)
    with pytest.raises(InvalidParameter, match="not conditioned"):
        plain.target_return(0.0)


def test_candidate_mode_does_not_read_the_prefix() -> None:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=64, features="candidate"))
    features = _features(64)
    other = DecisionFeatures(features.prefix_hidden * -3, features.candidate, features.scalars)

    assert torch.equal(policy.accept_logits(features), policy.accept_logits(other))


def test_scoring_a_slate_by_table_is_scoring_each_candidate_by_itself() -> None:
    embedding = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))

    class _Llm:
        hidden_size = 64

    policy = steering_policy(_Llm())  # type: ignore[arg-type]
    proxy = LoadedProxy(ProxyRef("p", 1), policy, SkamConfig(), embedding)
    tokens = torch.tensor([[5, 250, 7], [9, 1, 2]])
    logprobs = torch.tensor([[-0.2, -1.9, -4.0], [-0.7, -0.8, -2.5]])
    is_candidate = torch.tensor([[True, True, True], [True, True, False]])
    hidden = torch.randn(2, 64, generator=torch.Generator().manual_seed(4)) * 5
    assert proxy.scorer is not None

    scored = proxy.scorer.accept_logits(hidden, Slate(tokens, logprobs, is_candidate, is_candidate))

    scalars = slate_scalars(logprobs, is_candidate)
    for row in range(2):
        for index in range(3):
            features = DecisionFeatures(
                hidden[row][None], embedding[tokens[row, index]][None], scalars[row, index][None]
            )
            torch.testing.assert_close(scored[row, index], policy.accept_logits(features)[0].detach())


def test_scalars_are_rank_logprob_gap_and_mass_left() -> None:
    logprobs = torch.tensor([0.5, 0.25, 0.125]).log()

    scalars = slate_scalars(logprobs, torch.tensor([True, True, False]))

    assert scalars[:, 0].tolist() == pytest.approx([0.0, 1 / 16, 2 / 16])
    assert scalars[:2, 1].tolist() == pytest.approx([-0.0693147, -0.1386294], abs=1e-6)
    assert scalars[:2, 2].tolist() == pytest.approx([0.0, -0.0693147], abs=1e-6)
    assert scalars[:, 3].tolist() == pytest.approx([0.75, 0.25, 0.0])
