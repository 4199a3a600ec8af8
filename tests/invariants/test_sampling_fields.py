"""Penalties, biases and filters in the decode loop: as in transformers, alone as in a batch, in all feature modes."""

from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import FeatureMode, PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Finished, GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.architectures import random_model
from tests.conftest import steering_policy
from tests.tiny_tokenizer import byte_tokenizer

NO_TEXT: Any = torch.tensor([[0]])
SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
FEATURES: tuple[FeatureMode, ...] = ("prefix", "candidate", "both")
PROMPTS = [
    tuple(torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    for length in (5, 17, 40, 9)
]
FIELDS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.8},
    {"presence_penalty": 1.5, "frequency_penalty": 1.2},
    {"frequency_penalty": -2.0},
    {"logit_bias": ((700, 12.0), (701, 9.0))},
    {"top_k": 2},
    {"min_p": 0.4},
    {"min_tokens": 20},
    {"repetition_penalty": 1.3, "presence_penalty": 0.5, "top_k": 5, "min_p": 0.05, "logit_bias": ((3, -100.0),)},
]


def _request(name: str, prompt: tuple[int, ...], proxy: ProxyRef | None = None, **params: Any) -> GenerationRequest:
    settings: dict[str, Any] = {"max_tokens": 24, "seed": 11} | params
    return GenerationRequest(id=name, prompt_token_ids=prompt, params=SamplingParams(**settings), proxy=proxy)


def _engine(llm: FrozenLLM) -> Engine:
    engine = Engine(llm, EngineConfig(max_running=5, prefill_tokens=16, num_staging=2, max_context=256))
    for version, features in enumerate(FEATURES, start=1):
        neutral = ProxyPolicy(PolicyConfig(llm_hidden_size=llm.hidden_size, features=features, hidden_size=24))
        engine.load_proxy(ProxyRef("neutral", version), neutral, SKAM)
        engine.load_proxy(ProxyRef("steering", version), steering_policy(llm, features, seed=version), SKAM)
    return engine


def _tokens(answers: list[Finished]) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


@pytest.mark.parametrize("penalty", [1.15, 1.8, 0.7])
def test_a_repetition_penalty_gives_transformers_answers_with_and_without_a_neutral_proxy(penalty: float) -> None:
    reference, engine = (
        random_model("llama_tied"),
        _engine(FrozenLLM(random_model("llama_tied"), byte_tokenizer(), "x")),
    )
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        settings = GenerationConfig(
            max_new_tokens=24, do_sample=False, eos_token_id=7, pad_token_id=0, repetition_penalty=penalty
        )
        answer = reference.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        expected.append(tuple(answer[0, len(prompt) :].tolist()))
    plain = engine.generate(_request(f"a{i}", prompt) for i, prompt in enumerate(PROMPTS))

    for proxy in (None, *(ProxyRef("neutral", version) for version in (1, 2, 3))):
        answers = engine.generate(
            _request(f"{proxy}{i}", prompt, proxy, repetition_penalty=penalty) for i, prompt in enumerate(PROMPTS)
        )
        assert _tokens(answers) == expected
    assert expected != _tokens(plain)


def test_filters_leave_to_sampling_what_transformers_leaves_to_it(small_llm: FrozenLLM) -> None:
    """Every token of 200 sampled ones lies in the set that transformers' warpers keep at its position."""
    engine = _engine(small_llm)
    settings: dict[str, Any] = {"temperature": 1.6, "top_k": 9, "min_p": 0.08, "ignore_eos": True}
    warpers = LogitsProcessorList([TemperatureLogitsWarper(1.6), TopKLogitsWarper(9), MinPLogitsWarper(0.08)])
    requests = [
        _request(f"{i}/{seed}", prompt, **settings | {"seed": seed})
        for i, prompt in enumerate(PROMPTS)
        for seed in (1, 2)
    ]

    ranks = []
    for request, answer in zip(requests, engine.generate(requests), strict=True):
        text = [*request.prompt_token_ids, *answer.token_ids]
        states = small_llm.hidden_states([text], taps=[small_llm.num_layers])[0][:, 0]
        logits = small_llm.logits(states[len(request.prompt_token_ids) - 1 : -1])
        kept = warpers(NO_TEXT, logits)
        chosen = torch.tensor(answer.token_ids)[:, None]
        assert bool((kept.gather(1, chosen) > float("-inf")).all())
        ranks += (logits > logits.gather(1, chosen)).sum(1).tolist()

    assert max(ranks) >= 4, "the sampling must use its freedom for this to show anything"


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_a_neutral_proxy_is_the_plain_llm_under_every_field(small_llm: FrozenLLM, fields: dict[str, Any]) -> None:
    engine = _engine(small_llm)
    plain = engine.generate(_request(f"p{i}", prompt, **fields) for i, prompt in enumerate(PROMPTS))

    for version in (1, 2, 3):
        proxy = ProxyRef("neutral", version)
        answers = engine.generate(_request(f"n{i}", prompt, proxy, **fields) for i, prompt in enumerate(PROMPTS))
        assert _tokens(answers) == _tokens(plain)


def test_a_batch_of_every_field_answers_as_each_request_alone(small_llm: FrozenLLM) -> None:
    requests = [
        _request(f"{version}/{i}", PROMPTS[i % 4], proxy, temperature=(0.0, 0.9)[(i + version) % 2], **fields)
        for version, proxy in enumerate([None, *(ProxyRef("steering", version) for version in (1, 2, 3))])
        for i, fields in enumerate([{}, *FIELDS])
    ]

    together, engine = _engine(small_llm).generate(requests), _engine(small_llm)
    alone = [engine.generate([request])[0] for request in requests]

    assert _tokens(together) == _tokens(alone)
    totals = [[(each.usage.rejected, each.usage.forced) for each in answers] for answers in (together, alone)]
    assert totals[0] == totals[1]
    assert sum(each.usage.rejected for each in together) > 100, "the proxies must steer for this to show anything"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_proxy_chooses_among_what_the_filters_leave(small_llm: FrozenLLM, version: int) -> None:
    requests = [
        _request(f"{i}", prompt, ProxyRef("steering", version), top_k=3, ignore_eos=True)
        for i, prompt in enumerate(PROMPTS)
    ]

    answers = _engine(small_llm).generate(requests)

    assert sum(answer.usage.rejected for answer in answers) > 10
    for answer in answers:
        assert answer.usage.rejected <= 2 * len(answer.token_ids)
        text = [*PROMPTS[int(answer.request_id)], *answer.token_ids]
        states = small_llm.hidden_states([text], taps=[small_llm.num_layers])[0][:, 0]
        logits = small_llm.logits(states[-len(answer.token_ids) - 1 : -1])
        chosen = torch.tensor(answer.token_ids)[:, None]
        ranks = (logits > logits.gather(1, chosen)).sum(1)
        assert int(ranks.max()) <= 2


@pytest.mark.parametrize("proxy", [None, ProxyRef("neutral", 1), ProxyRef("neutral", 2)], ids=str)
def test_reported_logprobs_are_those_of_the_llm_before_every_processor(
    small_llm: FrozenLLM, proxy: ProxyRef | None
) -> None:
    request = _request("a", PROMPTS[1], proxy, top_logprobs=3, logit_bias=((700, 40.0),), presence_penalty=2.0)

    answer = _engine(small_llm).generate([request])[0]

    expected = small_llm.token_logprobs([[*PROMPTS[1], *answer.token_ids]], [len(PROMPTS[1])])[0]
    assert 700 in answer.token_ids, "the bias must have forced something unlikely"
    found = torch.tensor([each.logprob for each in answer.logprobs])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert all(each.top[0][3] >= each.top[1][3] >= each.top[2][3] for each in answer.logprobs)
