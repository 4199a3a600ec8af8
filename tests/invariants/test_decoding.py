"""These must be equal: neutral proxy, plain LLM and transformers' generate; batched and alone; streamed and whole."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import FeatureMode, PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import decision_features, decisions
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.architectures import ARCHITECTURES, random_model
from tests.conftest import steering_policy
from tests.tiny_tokenizer import byte_tokenizer

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
FEATURES: tuple[FeatureMode, ...] = ("prefix", "candidate", "both")
PROMPTS = [
    tuple(torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    for length in (3, 17, 40, 9, 64, 28)
]


def _request(name: str, prompt: tuple[int, ...], proxy: ProxyRef | None = None, **params: object) -> GenerationRequest:
    defaults: dict[str, object] = {"max_tokens": 24, "seed": 11}
    return GenerationRequest(
        id=name,
        prompt_token_ids=prompt,
        params=SamplingParams(**{**defaults, **params}),  # type: ignore[arg-type]
        proxy=proxy,
        record=True,
    )


def _engine(llm: FrozenLLM) -> Engine:
    engine = Engine(llm, EngineConfig(max_running=5, prefill_tokens=16, num_staging=2, max_context=256))
    for version, features in enumerate(FEATURES, start=1):
        neutral = ProxyPolicy(PolicyConfig(llm_hidden_size=llm.hidden_size, features=features, hidden_size=24))
        engine.load_proxy(ProxyRef("neutral", version), neutral, SKAM)
        engine.load_proxy(ProxyRef("steering", version), steering_policy(llm, features, seed=version), SKAM)
        dial = steering_policy(llm, features, seed=version, is_conditioned=True)
        engine.load_proxy(ProxyRef("dial", version), dial, SKAM)
    return engine


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_and_neutral_answers_are_those_of_transformers(name: str) -> None:
    reference = random_model(name)
    expected = []
    for prompt in PROMPTS:
        settings = GenerationConfig(max_new_tokens=24, do_sample=False, eos_token_id=7, pad_token_id=0)
        ids = torch.tensor([prompt])
        answer = reference.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        expected.append(tuple(answer[0, len(prompt) :].tolist()))
    engine = _engine(FrozenLLM(random_model(name), byte_tokenizer(), name))

    plain = engine.generate(_request(f"p{i}", prompt) for i, prompt in enumerate(PROMPTS))
    neutral = [
        engine.generate(_request(f"n{i}", prompt, ProxyRef("neutral", version)) for i, prompt in enumerate(PROMPTS))
        for version in (1, 2, 3)
    ]

    assert len(set(expected)) == len(PROMPTS), "the reference answers alike to everything: the test would show nothing"
    assert [each.token_ids for each in plain] == expected
    for answers in neutral:
        assert [each.token_ids for each in answers] == expected
        assert sum(each.usage.rejected for each in answers) == 0


def test_the_fast_decoder_is_transformers_own_forward() -> None:
    for name in ("llama_tied", "qwen2_with_biases", "qwen3_with_query_norms"):
        fast = FrozenLLM(random_model(name), byte_tokenizer(), name)
        slow = FrozenLLM(random_model(name), byte_tokenizer(), name, decoder="transformers")

        states = [llm.hidden_states(PROMPTS, taps=[1, 3]) for llm in (fast, slow)]

        for ours, theirs in zip(*states, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_batch_of_everything_answers_as_each_request_alone(small_llm: FrozenLLM) -> None:
    proxies = [None, *(ProxyRef("steering", version) for version in (1, 2, 3))]
    requests = [
        _request(f"{proxy}/{i}/{temperature}/{decision}", prompt, proxy, temperature=temperature, decision=decision)
        for proxy in proxies
        for i, prompt in enumerate(PROMPTS[:4])
        for temperature in (0.0, 0.9)
        for decision in ("greedy", "sample")
    ]
    requests += [
        _request(f"dial@{version}/{i}/{target}", prompt, ProxyRef("dial", version), target_return=target)
        for version in (1, 2, 3)
        for i, prompt in enumerate(PROMPTS[:3])
        for target in (None, 0.0, -3.5, 1.25)
    ]

    together = _engine(small_llm).generate(requests)
    alone = [_engine(small_llm).generate([request])[0] for request in requests]

    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert sum(each.usage.rejected for each in together) > 100, "the proxies must steer for this to show anything"
    totals = [[(each.usage.rejected, each.usage.forced) for each in answers] for answers in (together, alone)]
    assert totals[0] == totals[1]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_target_return_turns_a_conditioned_proxy_and_being_told_nothing_is_not_zero(
    small_llm: FrozenLLM, version: int
) -> None:
    targets = (None, 0.0, -4.0, 4.0)
    dial = ProxyRef("dial", version)
    answers = {
        target: _engine(small_llm).generate(
            _request(str(i), prompt, dial, target_return=target) for i, prompt in enumerate(PROMPTS)
        )
        for target in targets
    }

    assert len({tuple(each.token_ids for each in answers[target]) for target in targets}) == len(targets)
    for target in targets:
        trajectory = answers[target][0].trajectory
        assert trajectory is not None
        assert trajectory.target_return == target


def test_only_a_conditioned_proxy_takes_a_target_return_and_only_within_four_deviations(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)

    for proxy in (None, ProxyRef("steering", 1), ProxyRef("neutral", 2)):
        with pytest.raises(InvalidParameter, match=r"target_return.*not conditioned"):
            engine.submit(_request("a", PROMPTS[0], proxy, target_return=0.0))
    for target in (-4.01, 4.01, float("nan"), float("inf")):
        with pytest.raises(InvalidParameter, match=r"target_return.*\[-4.0, 4.0\]"):
            _request("a", PROMPTS[0], ProxyRef("dial", 1), target_return=target)
    assert not engine.has_work


def test_a_proxy_that_accepts_everything_is_plain_sampling(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)
    settings: dict[str, Any] = {"temperature": 1.3, "top_p": 0.9}

    plain = engine.generate(_request(f"p{i}", prompt, **settings) for i, prompt in enumerate(PROMPTS))
    proxied = engine.generate(
        _request(f"n{i}", prompt, ProxyRef("neutral", 1), **settings) for i, prompt in enumerate(PROMPTS)
    )
    greedy = engine.generate(_request(f"g{i}", prompt) for i, prompt in enumerate(PROMPTS))

    assert [each.token_ids for each in plain] == [each.token_ids for each in proxied]
    assert [each.token_ids for each in plain] != [each.token_ids for each in greedy]


def test_a_recorded_trajectory_may_be_learnt_from_as_it_is(small_llm: FrozenLLM) -> None:
    answer = _engine(small_llm).generate([_request("one", PROMPTS[0], ProxyRef("steering", 1))])[0]
    weight = torch.zeros(small_llm.hidden_size, requires_grad=True)

    assert answer.trajectory is not None
    (answer.trajectory.hidden.float() @ weight).sum().backward()

    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, answer.trajectory.hidden.float().sum(0))


@pytest.mark.parametrize("target", [None, 2.5])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_recorded_acceptance_is_what_the_policy_says_of_the_recorded_features(
    small_llm: FrozenLLM, version: int, target: float | None
) -> None:
    engine = _engine(small_llm)
    policy = steering_policy(small_llm, FEATURES[version - 1], seed=version, is_conditioned=target is not None)
    proxy = ProxyRef("steering" if target is None else "dial", version)
    requests = [
        _request(f"r{i}", prompt, proxy, decision="sample", target_return=target) for i, prompt in enumerate(PROMPTS)
    ]

    for answer in engine.generate(requests):
        trajectory = answer.trajectory
        assert trajectory is not None
        visited = decisions(trajectory)
        rescored = policy.accept_logits(decision_features(trajectory, small_llm.embedding)).detach()

        assert visited.is_accept.sum() == len(answer.token_ids)
        assert (~visited.is_accept).sum() == answer.usage.rejected
        assert bool(visited.is_free[~visited.is_accept].all()), "a forced candidate cannot be rejected"
        torch.testing.assert_close(
            visited.accept_logits[visited.is_free], rescored[visited.is_free], rtol=1e-4, atol=1e-4
        )


def test_text_streamed_in_deltas_is_the_text_of_the_whole(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)
    whole = engine.generate([_request("whole", PROMPTS[4], stop=("qq",))])[0]
    engine.submit(_request("parts", PROMPTS[4], stop=("qq",)))

    deltas = []
    while engine.has_work:
        deltas += engine.step()

    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)


def test_an_aborted_request_frees_its_slot_and_leaves_the_others_alone(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)
    expected = _engine(small_llm).generate([_request("kept", PROMPTS[2], ignore_eos=True)])[0]
    for name in ("gone", "kept", "queued"):
        engine.submit(_request(name, PROMPTS[2], ignore_eos=True))
    deltas = [delta for _ in range(6) for delta in engine.step()]

    engine.abort("gone")
    engine.abort("queued")

    assert engine.num_running == 1
    while engine.has_work:
        deltas += engine.step()
    tokens = [token for delta in deltas if delta.request_id == "kept" for token in delta.token_ids]
    assert tuple(tokens) == expected.token_ids


def test_a_running_answer_keeps_its_version_when_that_is_unloaded(small_llm: FrozenLLM) -> None:
    expected = _engine(small_llm).generate([_request("a", PROMPTS[0], ProxyRef("steering", 1))])[0]
    engine = _engine(small_llm)
    engine.submit(_request("a", PROMPTS[0], ProxyRef("steering", 1)))
    deltas = [delta for _ in range(4) for delta in engine.step()]

    engine.unload_proxy(ProxyRef("steering", 1))

    while engine.has_work:
        deltas += engine.step()
    assert tuple(token for delta in deltas for token in delta.token_ids) == expected.token_ids
    assert ProxyRef("steering", 1) not in engine.list_proxies()
