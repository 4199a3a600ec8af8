"""What the plugin decides for vLLM's rows is what the engine decides: tokens, counts and decisions, to the bit."""

import json
from typing import Any

import pytest
import torch

from proxy_model.decision.bank import LoadedProxy, ProxyBank, ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.grammar import json_schema
from proxy_model.decoding.request import Finished, GenerationRequest, SamplingParams
from proxy_model.errors import UnknownProxy
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.conftest import steering_policy
from tests.vllm_plugin.step_loop import Running, StepLoop

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
PROMPTS = [
    tuple(torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    for length in (3, 17, 40, 9)
]
STEERING, OTHER, DIAL = ProxyRef("steering", 1), ProxyRef("steering", 2), ProxyRef("dial", 1)
FORM = json_schema(
    {
        "type": "object",
        "properties": {"a": {"enum": [1, 22, 333]}},
        "required": ["a"],
        "additionalProperties": False,
    }
)
FIELDS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9, "decision": "sample"},
    {"temperature": 1.3, "top_p": 0.9, "seed": 5},
    {"repetition_penalty": 1.8, "presence_penalty": 0.5, "top_k": 5, "min_p": 0.05, "logit_bias": ((700, 12.0),)},
    {"min_tokens": 10, "frequency_penalty": 1.2},
    {"p_t": 0.0, "skam_top_p": 1.0, "skam_temperature": 1.5},
]


def requests() -> list[GenerationRequest]:
    """Every kind of request under every proxy."""
    return [
        GenerationRequest(
            id=f"{proxy}/{number}/{place}",
            prompt_token_ids=prompt,
            params=SamplingParams(**{"max_tokens": 12, "seed": 11} | fields),
            proxy=proxy,
            record=True,
        )
        for proxy in (None, STEERING, OTHER)
        for number, fields in enumerate(FIELDS)
        for place, prompt in enumerate(PROMPTS)
    ]


def ours(llm: FrozenLLM, asked: list[GenerationRequest]) -> dict[str, Finished]:
    """The engine's answers."""
    engine = Engine(llm, EngineConfig(max_running=5, prefill_tokens=16, num_staging=2, max_context=256))
    for ref in (STEERING, OTHER):
        engine.load_proxy(ref, steering_policy(llm, seed=ref.version), SKAM)
    engine.load_proxy(DIAL, steering_policy(llm, is_conditioned=True), SKAM)
    return {answer.request_id: answer for answer in engine.generate(asked)}


@pytest.fixture(scope="module")
def bank(small_llm: FrozenLLM) -> ProxyBank:
    """A worker's."""
    bank = ProxyBank()
    for ref in (STEERING, OTHER):
        bank.add(LoadedProxy(ref, steering_policy(small_llm, seed=ref.version), SKAM, small_llm.embedding))
    bank.add(LoadedProxy(DIAL, steering_policy(small_llm, is_conditioned=True), SKAM, small_llm.embedding))
    return bank


def test_rows_in_any_order_in_pieces_and_with_pauses_are_decided_as_by_the_engine(
    small_llm: FrozenLLM, bank: ProxyBank
) -> None:
    asked = requests()

    expected = ours(small_llm, asked)
    for seed in (0, 1):
        found = StepLoop(small_llm, bank, seed=seed).run(asked)

        assert {name: tuple(each.output) for name, each in found.items()} == {
            name: answer.token_ids for name, answer in expected.items()
        }
    assert len({answer.token_ids for answer in expected.values()}) > 40, "alike answers would show nothing"


def test_counts_are_those_of_the_trajectory_token_by_token(small_llm: FrozenLLM, bank: ProxyBank) -> None:
    asked = requests()

    expected = ours(small_llm, asked)
    found = StepLoop(small_llm, bank).run(asked)

    for name, each in found.items():
        trajectory = expected[name].trajectory
        assert trajectory is not None
        assert [position.rank for position in each.positions] == trajectory.ranks.tolist()
        if each.request.proxy is not None:
            usage = expected[name].usage
            assert sum(position.rank for position in each.positions) == usage.rejected
            assert sum(position.is_forced for position in each.positions) == usage.forced
    assert sum(position.rank for each in found.values() for position in each.positions) > 200


def test_a_target_return_reaches_the_proxy(small_llm: FrozenLLM, bank: ProxyBank) -> None:
    asked = [
        GenerationRequest(
            id=str(target),
            prompt_token_ids=PROMPTS[1],
            params=SamplingParams(max_tokens=12, target_return=target),
            proxy=DIAL,
        )
        for target in (None, -4.0, 4.0)
    ]

    expected = ours(small_llm, asked)
    found = StepLoop(small_llm, bank).run(asked)

    assert {name: tuple(each.output) for name, each in found.items()} == {
        name: answer.token_ids for name, answer in expected.items()
    }
    assert len({answer.token_ids for answer in expected.values()}) == 3


def test_a_form_is_kept_under_a_proxy(small_llm: FrozenLLM, bank: ProxyBank) -> None:
    asked = [
        GenerationRequest(
            id=str(seed),
            prompt_token_ids=PROMPTS[0],
            params=SamplingParams(max_tokens=60, temperature=0.8, seed=seed, grammar=FORM),
            proxy=STEERING,
        )
        for seed in (1, 2)
    ]

    expected = ours(small_llm, asked)
    found = StepLoop(small_llm, bank).run(asked)

    for name, each in found.items():
        assert tuple(each.output) == expected[name].token_ids
        assert json.loads(expected[name].text)["a"] in (1, 22, 333)


def test_decisions_and_log_probabilities_are_those_of_the_engine(small_llm: FrozenLLM, bank: ProxyBank) -> None:
    asked = [
        GenerationRequest(
            id=f"{proxy}/{temperature}",
            prompt_token_ids=PROMPTS[2],
            params=SamplingParams(
                max_tokens=8, temperature=temperature, seed=3, top_logprobs=num_top, return_decisions=proxy is not None
            ),
            proxy=proxy,
        )
        for proxy, temperature, num_top in ((None, 0.0, 0), (STEERING, 0.0, 5), (OTHER, 1.0, 2), (STEERING, 0.7, None))
    ]
    engine = Engine(small_llm)
    for ref in (STEERING, OTHER):
        engine.load_proxy(ref, steering_policy(small_llm, seed=ref.version), SKAM)
    for request in asked:
        engine.submit(request)
    deltas = [delta for _ in range(60) for delta in engine.step()]

    found = StepLoop(small_llm, bank).run(asked)

    for request in asked:
        expected = [delta for delta in deltas if delta.request_id == request.id]
        positions = found[request.id].positions
        assert len(expected) == len(positions) == 8
        for delta, position in zip(expected, positions, strict=True):
            for logprob in delta.logprobs:
                scored = position.scored(request.params.top_logprobs or 0)
                assert scored.logprob == pytest.approx(logprob.logprob, abs=1e-5)
                assert [token for token, _ in scored.likeliest] == [token for token, *_ in logprob.top]
            for told in delta.decisions:
                seen = list(position.seen())
                assert [(each.token, each.is_free) for each in seen] == [
                    (each.token_id, each.is_free) for each in told.candidates
                ]
                assert [each.prob for each in seen] == pytest.approx([each.prob for each in told.candidates], rel=1e-4)
                asked_of = [each.accept_prob for each in told.candidates if each.accept_prob is not None]
                assert [each.accept_prob for each in seen if each.is_free] == pytest.approx(asked_of, rel=1e-3)


def test_an_unfinished_prompt_draws_no_noise_and_is_not_remembered(small_llm: FrozenLLM, bank: ProxyBank) -> None:
    request = GenerationRequest(
        id="a", prompt_token_ids=PROMPTS[2], params=SamplingParams(max_tokens=1, temperature=1.0, seed=4)
    )
    whole, pieces = Running(request), Running(request)

    StepLoop(small_llm, bank, piece=40).step([whole])
    loop = StepLoop(small_llm, bank, piece=13)
    for _ in range(4):
        loop.step([pieces])

    assert pieces.output == whole.output


def test_a_version_that_was_unloaded_goes_on_for_who_has_it_and_is_closed_to_others(small_llm: FrozenLLM) -> None:
    bank = ProxyBank()
    bank.add(LoadedProxy(STEERING, steering_policy(small_llm, seed=1), SKAM, small_llm.embedding))
    first, second = (
        Running(
            GenerationRequest(id=name, prompt_token_ids=PROMPTS[0], params=SamplingParams(max_tokens=6), proxy=STEERING)
        )
        for name in "ab"
    )
    loop = StepLoop(small_llm, bank)
    loop.step([first])

    bank.unload(STEERING)
    for _ in range(5):
        loop.step([first])

    assert tuple(first.output) == ours(small_llm, [first.request])["a"].token_ids
    with pytest.raises(UnknownProxy):
        loop.step([second])
