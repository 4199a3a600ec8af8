"""Answers with a form: always of that form, and otherwise what the LLM and its proxy would say."""

import json
import re
from typing import Any

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import FeatureMode, PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.grammar import ANY_JSON_OBJECT, GrammarSpec, json_schema
from proxy_model.decoding.logit_processors import unpacked
from proxy_model.decoding.request import Delta, Finished, GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.conftest import steering_policy

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
EVERYTHING = SkamConfig(p_t=0.0, top_p=1.0, max_candidates=12)
FEATURES: tuple[FeatureMode, ...] = ("prefix", "candidate", "both")
PROXIES = [None, *(ProxyRef(name, version) for name in ("neutral", "steering", "open") for version in (1, 2, 3))]
PROMPTS = [
    tuple(torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    for length in (5, 17, 40, 9)
]
POINT = json_schema(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "kind": {"enum": ["dot", "star"]},
            "x": {"type": "integer", "minimum": -9, "maximum": 99},
        },
        "required": ["name", "kind", "x"],
        "additionalProperties": False,
    }
)
DATE = GrammarSpec("regex", r"[12][0-9]{3}-[01][0-9]")


def _request(name: str, prompt: tuple[int, ...], proxy: ProxyRef | None = None, **params: Any) -> GenerationRequest:
    settings: dict[str, Any] = {"max_tokens": 160, "seed": 11} | params
    return GenerationRequest(
        id=name, prompt_token_ids=prompt, params=SamplingParams(**settings), proxy=proxy, record=True
    )


def _engine(llm: FrozenLLM) -> Engine:
    engine = Engine(llm, EngineConfig(max_running=5, prefill_tokens=16, num_staging=2, max_context=256))
    for version, features in enumerate(FEATURES, start=1):
        neutral = ProxyPolicy(PolicyConfig(llm_hidden_size=llm.hidden_size, features=features, hidden_size=24))
        engine.load_proxy(ProxyRef("neutral", version), neutral, SKAM)
        engine.load_proxy(ProxyRef("steering", version), steering_policy(llm, features, seed=version), SKAM)
        # SKAM switched off and everything rejected: whatever can be offered at all is reached
        engine.load_proxy(ProxyRef("open", version), steering_policy(llm, features, bias=-9.0), EVERYTHING)
    return engine


def _is_a_point(text: str) -> bool:
    point = json.loads(text)
    return (
        list(point) == ["name", "kind", "x"]
        and len(point["name"]) <= 6
        and point["kind"] in ("dot", "star")
        and -9 <= point["x"] <= 99
    )


@pytest.mark.parametrize("temperature", [0.0, 1.4])
def test_every_answer_keeps_to_its_form_in_every_mode_and_order(small_llm: FrozenLLM, temperature: float) -> None:
    requests = [
        _request(f"{proxy}/{i}", prompt, proxy, temperature=temperature, grammar=[POINT, DATE][i % 2])
        for proxy in PROXIES
        for i, prompt in enumerate(PROMPTS[:2])
    ]

    answers = _engine(small_llm).generate(requests)

    assert [answer.finish_reason for answer in answers] == ["stop"] * len(requests)
    assert all(answer.token_ids[-1] == 7 for answer in answers)
    for request, answer in zip(requests, answers, strict=True):
        if request.params.grammar is POINT:
            assert _is_a_point(answer.text)
        else:
            assert re.fullmatch(DATE.text, answer.text)
    assert len({answer.text for answer in answers}) > 10
    assert sum(answer.usage.rejected for answer in answers) > 50


def test_a_neutral_proxy_is_the_plain_llm_and_that_is_the_argmax_of_what_is_allowed(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)

    for i, prompt in enumerate(PROMPTS[:1]):
        expected = _argmax_answer(small_llm, engine, prompt, POINT)
        for proxy in PROXIES[:4]:
            answer = engine.generate([_request(f"{proxy}{i}", prompt, proxy, grammar=POINT)])[0]
            assert list(answer.token_ids) == expected


def _argmax_answer(llm: FrozenLLM, engine: Engine, prompt: tuple[int, ...], spec: GrammarSpec) -> list[int]:
    """Read the whole text anew for each token."""
    state, output = engine.grammars.compile(spec).begin(), list[int]()
    while not output or output[-1] not in llm.end_token_ids:
        states = llm.hidden_states([[*prompt, *output]], taps=[llm.num_layers])[0][-1:, 0]
        is_allowed = unpacked(engine.grammars.allowed([state]), llm.vocab_size)
        output.append(int(llm.logits(states).masked_fill(~is_allowed, float("-inf")).argmax()))
        state.advance(output[-1])
    return output


def test_a_batch_with_and_without_forms_answers_as_each_request_alone(small_llm: FrozenLLM) -> None:
    grammars = [None, POINT, DATE, ANY_JSON_OBJECT]
    requests = [
        _request(f"{proxy}/{i}", PROMPTS[i], proxy, temperature=(0.0, 0.9)[(i + j) % 2], grammar=grammar, max_tokens=16)
        for j, proxy in enumerate(PROXIES[:7])
        for i, grammar in enumerate(grammars)
    ]

    together, engine = _engine(small_llm).generate(requests), _engine(small_llm)
    alone = [engine.generate([request])[0] for request in requests]

    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    totals = [[(each.usage.rejected, each.usage.forced) for each in answers] for answers in (together, alone)]
    assert totals[0] == totals[1]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_only_grammatical_tokens_are_ever_candidates(small_llm: FrozenLLM, version: int) -> None:
    engine = _engine(small_llm)
    answer = engine.generate([_request("a", PROMPTS[0], ProxyRef("open", version), grammar=POINT)])[0]
    trajectory, state = answer.trajectory, engine.grammars.compile(POINT).begin()
    assert trajectory is not None

    for position, token in enumerate(answer.token_ids):
        is_allowed = unpacked(engine.grammars.allowed([state]), small_llm.vocab_size)[0]
        candidates = trajectory.candidates[position][trajectory.is_candidate[position]]
        assert bool(is_allowed[candidates].all())
        assert len(candidates) == min(12, int(is_allowed.sum()))
        state.advance(token)


def test_an_answer_that_is_cut_off_says_so(small_llm: FrozenLLM) -> None:
    answer = _engine(small_llm).generate([_request("a", PROMPTS[0], grammar=POINT, max_tokens=5)])[0]

    assert answer.finish_reason == "length"
    assert answer.text.startswith("{")


def test_a_stop_string_ends_a_form_before_its_end(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)
    for proxy in PROXIES[:7]:
        answer = engine.generate([_request("a", PROMPTS[0], proxy, grammar=DATE, stop=("-",))])[0]

        assert answer.finish_reason == "stop"
        assert re.fullmatch(r"[12][0-9]{3}", answer.text)


def test_a_minimum_length_gives_way_where_a_form_can_only_end(small_llm: FrozenLLM) -> None:
    many = GrammarSpec("regex", "a{2,30}")
    engine = _engine(small_llm)
    for proxy in PROXIES[:4]:
        short = engine.generate([_request("s", PROMPTS[0], proxy, grammar=DATE, min_tokens=50)])[0]
        long = engine.generate([_request("l", PROMPTS[0], proxy, grammar=many, min_tokens=20, stop_token_ids=(9,))])[0]

        assert re.fullmatch(DATE.text, short.text)
        assert len(long.text) >= 20


def test_filters_and_penalties_act_on_what_the_form_leaves(small_llm: FrozenLLM) -> None:
    settings: dict[str, Any] = {"presence_penalty": 2.0, "frequency_penalty": 2.0, "repetition_penalty": 3.0}
    bias = tuple((token, 100.0) for token in range(20, 60))
    engine = _engine(small_llm)
    for proxy in PROXIES[:7]:
        answer = engine.generate(
            [_request("a", PROMPTS[1], proxy, grammar=POINT, top_k=1, min_p=0.9, logit_bias=bias, **settings)]
        )[0]

        assert _is_a_point(answer.text)
        assert answer.usage.rejected == 0


def test_a_grammar_that_becomes_too_complex_ends_its_answer_with_an_error(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)
    engine.submit(_request("bad", PROMPTS[0], ProxyRef("steering", 2), grammar=POINT))
    engine.submit(_request("good", PROMPTS[1], grammar=POINT))
    deltas: list[Delta] = []
    while not any(delta.request_id == "bad" for delta in deltas):
        deltas += engine.step()
    broken = next(each for each in engine._scheduler.decoding if each.request.id == "bad")
    assert broken.grammar is not None

    broken.grammar.advance(1400)  # no grammar allows it: the matcher gives up
    while engine.has_work:
        deltas += engine.step()

    last = {delta.request_id: delta for delta in deltas if delta.finish_reason is not None}
    assert (last["bad"].finish_reason, last["good"].finish_reason) == ("error", "stop")
    assert "too complex" in (last["bad"].error or "")
    assert (engine.num_running, engine.kv_cache_usage) == (0, 0.0)


def test_a_form_does_not_disturb_its_recorded_trajectory(small_llm: FrozenLLM) -> None:
    from proxy_model.decision.trajectory import decision_features, decisions

    answers: list[Finished] = _engine(small_llm).generate(
        _request(f"{i}", prompt, ProxyRef("steering", 1), grammar=POINT) for i, prompt in enumerate(PROMPTS)
    )

    for answer in answers:
        assert answer.trajectory is not None
        features = decision_features(answer.trajectory, small_llm.embedding)
        assert bool(features.scalars.isfinite().all())
        assert int(decisions(answer.trajectory).is_accept.sum()) == len(answer.token_ids)
