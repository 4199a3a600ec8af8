"""What one engine decided, retraced by another LLM object of the same weights, is the trajectory that was recorded."""

from dataclasses import replace

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import Trajectory, decision_features, decisions
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.decoding.retrace import DecidedAnswer, OfferedCandidate, Retracer
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.architectures import random_model
from tests.conftest import needs_kernels, steering_policy
from tests.tiny_tokenizer import byte_tokenizer

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12, temperature=1.3)
LENGTHS = (3, 17, 40, 9, 64, 28, 5, 90)


def recorded(llm: FrozenLLM, policy: ProxyPolicy, target_return: float | None = None) -> list[Trajectory]:
    """Answers of at most 24 tokens, five side by side, in slates of 12."""
    sizes = EngineConfig(max_running=5, prefill_tokens=16, num_staging=2, max_context=256, max_candidates=12)
    engine, proxy = Engine(llm, sizes), ProxyRef("steering", 1)
    engine.load_proxy(proxy, policy, SKAM)
    params = SamplingParams(max_tokens=24, seed=11, decision="sample", target_return=target_return)
    generator = torch.Generator().manual_seed(3)
    prompts = [tuple(torch.randint(8, 1400, (length,), generator=generator).tolist()) for length in LENGTHS]
    requests = [
        GenerationRequest(id=str(number), prompt_token_ids=prompt, params=params, proxy=proxy, record=True)
        for number, prompt in enumerate(prompts)
    ]
    return [each.trajectory for each in engine.generate(requests) if each.trajectory is not None]


def as_told(trajectory: Trajectory) -> DecidedAnswer:
    """What a server tells of it."""
    rows = zip(trajectory.candidates.tolist(), trajectory.is_free.tolist(), trajectory.ranks.tolist(), strict=True)
    return DecidedAnswer(
        prompt_token_ids=trajectory.prompt_token_ids,
        positions=tuple(
            tuple(map(OfferedCandidate, tokens[: rank + 1], is_free[: rank + 1])) for tokens, is_free, rank in rows
        ),
        finish_reason=trajectory.finish_reason,
        target_return=trajectory.target_return,
    )


@pytest.mark.parametrize("target_return", [None, -1.5])
def test_in_float32_decisions_are_the_same_and_numbers_differ_by_rounding(
    small_llm: FrozenLLM, target_return: float | None
) -> None:
    policy = steering_policy(small_llm, is_conditioned=target_return is not None)
    old = recorded(small_llm, policy, target_return)

    found = Retracer(small_llm, policy, SKAM).retrace([as_told(each) for each in old])

    assert sum(int(each.ranks.sum()) for each in old) > 20, "the proxy must reject for this to show anything"
    for before, after in zip(old, found, strict=True):
        new = after.trajectory
        assert after.num_differing == 0
        assert (new.token_ids, new.finish_reason, new.target_return) == (
            before.token_ids,
            before.finish_reason,
            target_return,
        )
        assert torch.equal(new.ranks, before.ranks)
        for part in ("tokens", "is_accept", "is_free"):
            assert torch.equal(getattr(decisions(new), part), getattr(decisions(before), part)), part
        torch.testing.assert_close(new.hidden, before.hidden, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            decisions(new).accept_logits, decisions(before).accept_logits, rtol=1e-3, atol=1e-3, equal_nan=True
        )


@needs_kernels
def test_with_compiled_kernels_everything_that_is_learnt_from_is_the_same_to_the_bit() -> None:
    llm = FrozenLLM(random_model("llama_wide").to(torch.bfloat16), byte_tokenizer(), "wide")
    policy = steering_policy(llm)
    old = recorded(llm, policy)

    found = Retracer(llm, policy, SKAM).retrace([as_told(each) for each in old])

    assert llm.decoder_kind == "native"
    for before, after in zip(old, found, strict=True):
        new = after.trajectory
        assert after.num_differing == 0
        for part in ("hidden", "candidates", "logprobs", "is_candidate", "is_free", "ranks", "accept_logits"):
            torch.testing.assert_close(getattr(new, part), getattr(before, part), rtol=0, atol=0, equal_nan=True)


def test_a_rejection_that_was_masked_elsewhere_is_no_decision_here(small_llm: FrozenLLM) -> None:
    policy = steering_policy(small_llm)
    before = recorded(small_llm, policy)[1]
    told, last = as_told(before), before.num_positions - 1
    *rejected, accepted = told.positions[last]
    assert accepted.is_free
    masked = (*told.positions[:last], (*rejected, replace(accepted, is_free=False)))

    (found,) = Retracer(small_llm, policy, SKAM).retrace([replace(told, positions=masked)])

    assert found.num_differing == 1
    assert not found.trajectory.is_free[last, len(rejected)]
    assert torch.equal(found.trajectory.candidates[last], before.candidates[last])


def test_what_was_decided_over_other_candidates_stands(small_llm: FrozenLLM) -> None:
    """Two candidates in the other order, one that this LLM does not offer, and one that it would have left free."""
    policy = steering_policy(small_llm)
    before = next(each for each in recorded(small_llm, policy) if int(each.is_candidate[:4, 2].all()))
    told = as_told(before)
    first, second, third = (OfferedCandidate(token, is_free=True) for token in before.candidates[0, :3].tolist())
    stranger = next(token for token in range(8, 1400) if token not in before.candidates[1].tolist())
    likeliest = int(before.candidates[2, 0])
    positions = (
        (second, first),
        (OfferedCandidate(int(before.candidates[1, 0]), is_free=True), OfferedCandidate(stranger, is_free=True)),
        (OfferedCandidate(likeliest, is_free=False),),
        *told.positions[3:],
    )

    (found,) = Retracer(small_llm, policy, SKAM).retrace([replace(told, positions=positions)])

    new = found.trajectory
    assert bool(before.is_free[2, 0])
    assert new.token_ids[:3] == (first.token, stranger, likeliest)
    assert new.ranks[:3].tolist() == [1, 1, 0]
    assert new.candidates[0, :3].tolist() == [second.token, first.token, third.token]
    assert new.candidates[1, :3].tolist() == [int(before.candidates[1, 0]), stranger, int(before.candidates[1, 1])]
    assert new.is_free[0, :2].tolist() == [True, True]
    assert not new.is_free[2, 0]
    torch.testing.assert_close(new.logprobs[0, :2], before.logprobs[0, [1, 0]], rtol=1e-4, atol=1e-4)
    rescored = policy.accept_logits(decision_features(new, small_llm.embedding)).detach()
    visited = decisions(new)
    torch.testing.assert_close(rescored[visited.is_free], visited.accept_logits[visited.is_free], rtol=1e-3, atol=1e-3)
    assert found.num_differing >= 3
