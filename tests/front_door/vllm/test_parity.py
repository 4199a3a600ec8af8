"""One crowd of requests over vLLM, with prompts read in pieces, and over the engine one by one: the same answers."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Finished, GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import proxies_root
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.conftest import steering_policy
from tests.front_door.conftest import LLM
from tests.front_door.server_process import ServerProcess
from tests.front_door.vllm.conftest import StartVllm

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
LENGTH = 16
PROMPTS = ["calm", "How do I stay calm? " * 2, "one two three " * 9, "x" * 90]
FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"temperature": 0.9, "seed": 7}, {"temperature": 0.9, "seed": 7}),
    (
        {"temperature": 1.2, "top_p": 0.9, "seed": 5, "proxy": {"decision": "sample"}},
        {"temperature": 1.2, "top_p": 0.9, "seed": 5, "decision": "sample"},
    ),
    (
        {"repetition_penalty": 1.5, "presence_penalty": 0.5, "top_k": 5, "min_p": 0.05, "logit_bias": {"70": 12}},
        {"repetition_penalty": 1.5, "presence_penalty": 0.5, "top_k": 5, "min_p": 0.05, "logit_bias": ((70, 12.0),)},
    ),
    ({"proxy": {"p_t": 0.02, "temperature": 1.5}}, {"p_t": 0.02, "skam_temperature": 1.5}),
]
"""As JSON, and as the engine takes them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request in both forms."""

    body: dict[str, Any]
    request: GenerationRequest


def policies(llm: FrozenLLM) -> dict[ProxyRef, ProxyPolicy]:
    """Two proxies that reject a good part."""
    return {
        ProxyRef("steering", 1): steering_policy(llm, seed=1, bias=-1.5),
        ProxyRef("steering", 2): steering_policy(llm, seed=2, bias=-1.5),
    }


def crowd(llm: FrozenLLM) -> list[Asked]:
    """Every kind of request under each proxy and under none."""
    asked = []
    for proxy in (None, *policies(llm)):
        for number, (fields, params) in enumerate(FIELDS):
            for place, prompt in enumerate(PROMPTS):
                messages = [{"role": "user", "content": prompt}]
                model = f"{LLM}:base" if proxy is None else f"{LLM}:{proxy}"
                body = {"model": model, "messages": messages, "max_tokens": LENGTH, "ignore_eos": True} | fields
                request = GenerationRequest(
                    id=f"{proxy}/{number}/{place}",
                    prompt_token_ids=tuple(llm.tokenizer.apply_chat_template(messages)),
                    params=SamplingParams(**{"max_tokens": LENGTH, "ignore_eos": True} | params),
                    proxy=proxy,
                )
                asked.append(Asked(body, request))
    return asked


@pytest.fixture(scope="module")
def expected(llm: FrozenLLM) -> dict[str, Finished]:
    """The engine's answers, each alone."""
    engine = Engine(llm, EngineConfig(max_context=512))
    for ref, policy in policies(llm).items():
        engine.load_proxy(ref, policy, SKAM)
    return {each.request.id: engine.generate([each.request])[0] for each in crowd(llm)}


@pytest.fixture(scope="module")
def published(home: Path, llm: FrozenLLM) -> None:
    """The proxies."""
    registry = ProxyRegistry(proxies_root(home))
    for ref, policy in policies(llm).items():
        registry.publish(ref.name, Checkpoint(policy, SKAM, dict(llm.fingerprint)))


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def server(request: pytest.FixtureRequest, start_vllm: StartVllm, published: None) -> Iterator[ServerProcess]:
    """At most 48 tokens in a step, so that most prompts are read in pieces among answers that go on."""
    arguments = {"max_num_batched_tokens": 48, "tensor_parallel_size": request.param}
    server = start_vllm("--max-context", "512", "--max-running", "8", **arguments)
    yield server
    server.kill()


async def ask_all(server: ServerProcess, asked: list[Asked]) -> list[dict[str, Any]]:
    """All at once."""
    async with httpx.AsyncClient(base_url=server.url, timeout=240) as client:
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=each.body) for each in asked))
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers[:2]]
    return [answer.json() for answer in answers]


@pytest.fixture(scope="module")
def answers(server: ServerProcess, llm: FrozenLLM) -> list[dict[str, Any]]:
    """The crowd's, from vLLM."""
    return asyncio.run(ask_all(server, crowd(llm)))


def test_a_crowd_over_vllm_gets_what_each_gets_alone_from_the_engine(
    answers: list[dict[str, Any]], expected: dict[str, Finished], llm: FrozenLLM
) -> None:
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]

    assert texts == [expected[each.request.id].text for each in crowd(llm)]
    assert len(set(texts)) > 20, "alike answers would show nothing"


def test_counts_reconcile_with_the_engine_s_in_answers_and_metrics(
    answers: list[dict[str, Any]], expected: dict[str, Finished], llm: FrozenLLM, server: ServerProcess
) -> None:
    for answer, each in zip(answers, crowd(llm), strict=True):
        usage = expected[each.request.id].usage
        assert answer["usage"]["completion_tokens"] == LENGTH
        if each.request.proxy is None:
            assert answer["proxy"] is None
        else:
            told = answer["proxy"]
            assert (told["accepted"], told["rejections"], told["forced"]) == (LENGTH, usage.rejected, usage.forced)
    for version in (1, 2):
        mine = [name for name in expected if name.startswith(f"steering@{version}/")]
        series = {"proxy": "steering", "version": str(version)}
        assert server.metric("proxy_accepted_tokens_total", **series) == LENGTH * len(mine)
        rejected = sum(expected[name].usage.rejected for name in mine)
        assert server.metric("proxy_rejected_tokens_total", **series) == rejected > 20
        assert server.metric("proxy_forced_accepts_total", **series) == sum(
            expected[name].usage.forced for name in mine
        )


def test_asked_again_alone_it_answers_the_same(
    server: ServerProcess, answers: list[dict[str, Any]], llm: FrozenLLM
) -> None:
    for number, each in list(enumerate(crowd(llm)))[::7]:
        (again,) = asyncio.run(ask_all(server, [each]))
        assert again["choices"][0]["message"] == answers[number]["choices"][0]["message"]
        assert again["proxy"] == answers[number]["proxy"]


def test_decisions_and_log_probabilities_are_told(server: ServerProcess, llm: FrozenLLM) -> None:
    asked = crowd(llm)[2 * len(FIELDS) * len(PROMPTS) - 1]
    body = asked.body | {"logprobs": True, "top_logprobs": 3, "proxy": {"return_decisions": True}}
    engine = Engine(llm, EngineConfig(max_context=512))
    ref = ProxyRef("steering", 1)
    engine.load_proxy(ref, policies(llm)[ref], SKAM)
    params = SamplingParams(max_tokens=LENGTH, ignore_eos=True, top_logprobs=3, return_decisions=True)
    engine.submit(GenerationRequest(id="a", prompt_token_ids=asked.request.prompt_token_ids, params=params, proxy=ref))
    deltas = [delta for _ in range(LENGTH + 20) for delta in engine.step()]

    (answer,) = asyncio.run(ask_all(server, [Asked(body, asked.request)]))

    told = answer["choices"][0]
    assert len(deltas) == LENGTH
    for delta, logprob, position in zip(deltas, told["logprobs"]["content"], told["proxy"]["decisions"], strict=True):
        assert logprob["logprob"] == pytest.approx(delta.logprobs[0].logprob, abs=1e-4)
        assert [top["token"] for top in logprob["top_logprobs"]] == [top[1] for top in delta.logprobs[0].top]
        (candidates,) = (each.candidates for each in delta.decisions)
        assert [seen["token_id"] for seen in position["candidates"]] == [seen.token_id for seen in candidates]
        probs = [seen.accept_prob for seen in candidates if seen.is_free]
        assert [seen["accept_prob"] for seen in position["candidates"] if seen["is_free"]] == pytest.approx(
            probs, abs=1e-4
        )
