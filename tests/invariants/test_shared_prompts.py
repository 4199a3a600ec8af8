"""What is copied from another prompt is what reading gives: the same states, to the bit, and the same answers."""

import random
from typing import Any

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Delta, Finished, GenerationRequest, SamplingParams
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.architectures import ARCHITECTURES, random_model
from tests.conftest import steering_policy
from tests.tiny_tokenizer import byte_tokenizer

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
PREFIX, CANDIDATE = ProxyRef("steering", 1), ProxyRef("walking", 1)
TEXT = tuple(torch.randint(8, 1400, (230,), generator=torch.Generator().manual_seed(1)).tolist())
OTHER = tuple(torch.randint(8, 1400, (230,), generator=torch.Generator().manual_seed(2)).tolist())


def _llm(name: str, dtype: torch.dtype) -> FrozenLLM:
    return FrozenLLM(random_model(name).to(dtype), byte_tokenizer(), name)


def _engine(llm: FrozenLLM, **sizes: int) -> Engine:
    engine = Engine(llm, EngineConfig(**{"max_running": 6, "num_staging": 3, "max_context": 256, **sizes}))
    engine.load_proxy(PREFIX, steering_policy(llm, seed=1), SKAM)
    engine.load_proxy(CANDIDATE, steering_policy(llm, "candidate", seed=2), SKAM)
    return engine


def _request(
    name: str, prompt: tuple[int, ...], proxy: ProxyRef | None = None, scope: str = "", **params: Any
) -> GenerationRequest:
    settings = {"max_tokens": 10, "seed": 5, "ignore_eos": True, **params}
    return GenerationRequest(
        id=name,
        prompt_token_ids=prompt,
        params=SamplingParams(**settings),
        proxy=proxy,
        record=True,
        prefix_scope=scope,
    )


def _alone(llm: FrozenLLM, request: GenerationRequest) -> Finished:
    return _engine(llm, prefix_cache_tokens=0).generate([request])[0]


def _states(answer: Finished) -> torch.Tensor:
    """h before each token of an answer: of the prompt's last token, and of tokens that looked at all of the prompt."""
    assert answer.trajectory is not None
    return answer.trajectory.hidden


def _run(engine: Engine, name: str, deltas: list[Delta]) -> list[Delta]:
    """The deltas of request `name`, once nothing is left to do."""
    while engine.has_work:
        deltas += engine.step()
    return [delta for delta in deltas if delta.request_id == name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_prompt_that_begins_like_another_has_the_states_of_one_that_was_read(
    architecture: str, dtype: torch.dtype
) -> None:
    llm = _llm(architecture, dtype)
    prompts = {
        "new": (TEXT[:150], 0),
        "the same": (TEXT[:150], 150),
        "alike for a block and some": (TEXT[:90] + OTHER[:60], 64),
        "its beginning, whole blocks": (TEXT[:128], 128),
        "its beginning, into a block": (TEXT[:140], 128),
        "longer": (TEXT[:200], 128),
        "longer still, by blocks of two prompts": (TEXT[:230], 192),
        "shorter than a block, new": (OTHER[:30], 0),
        "shorter than a block": (OTHER[:30], 30),
        "other from the first token": (OTHER[:1] + TEXT[1:150], 0),
    }
    requests = [
        _request(name, prompt, proxy)
        for (name, (prompt, _)), proxy in zip(prompts.items(), [None, None, PREFIX, CANDIDATE] * 3, strict=False)
    ]
    engine = _engine(llm)

    answers = [engine.generate([request])[0] for request in requests]

    for request, answer in zip(requests, answers, strict=True):
        expected = _alone(llm, request)
        assert answer.token_ids == expected.token_ids, request.id
        assert torch.equal(_states(answer), _states(expected)), request.id
        assert answer.usage.cached_tokens == prompts[request.id][1], request.id
        assert (answer.usage.passes, answer.usage.rejected) == (expected.usage.passes, expected.usage.rejected)


@pytest.mark.parametrize(("max_running", "prefill_tokens"), [(2, 128), (6, 128), (6, 1024)])
def test_prompts_in_flight_are_read_once_and_answered_as_if_alone(max_running: int, prefill_tokens: int) -> None:
    llm = _llm("llama_untied", torch.bfloat16)
    engine = _engine(llm, max_running=max_running, prefill_tokens=prefill_tokens)
    requests = [
        _request(f"{proxy}{index}", TEXT[:200], proxy, temperature=0.8, seed=index)
        for proxy in (PREFIX, None)
        for index in range(4)
    ]
    requests.append(_request("alike", TEXT[:130] + OTHER[:40]))

    answers = engine.generate(requests)

    assert [answer.usage.cached_tokens for answer in answers] == [0, *[200] * 7, 128]
    assert len({answer.token_ids for answer in answers[:4]}) == 4
    for request, answer in zip(requests, answers, strict=True):
        expected = _alone(llm, request)
        assert answer.token_ids == expected.token_ids
        assert torch.equal(_states(answer), _states(expected))


def test_a_full_cache_gives_up_what_was_unused_for_longest(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm, prefix_cache_tokens=3 * 64 + 63)
    prompts = [TEXT[:64], OTHER[:64], TEXT[64:128], TEXT[:64], OTHER[64:128], OTHER[:64], TEXT[:64]]

    answers = [engine.generate([_request(str(index), prompt, max_tokens=3)])[0] for index, prompt in enumerate(prompts)]

    assert [answer.usage.cached_tokens for answer in answers] == [0, 0, 0, 64, 0, 0, 64]
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.token_ids == _alone(small_llm, _request("alone", prompt, max_tokens=3)).token_ids


def test_a_prompt_longer_than_the_cache_is_read_by_everyone(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm, prefix_cache_tokens=64)

    answers = engine.generate(_request(str(index), TEXT[:200]) for index in range(4))

    expected = _alone(small_llm, _request("alone", TEXT[:200]))
    assert {answer.token_ids for answer in answers} == {expected.token_ids}


def test_who_waits_for_a_prompt_whose_reader_goes_away_reads_on(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm, prefill_tokens=64)
    expected = _alone(small_llm, _request("second", TEXT[:200])).token_ids
    engine.submit(_request("first", TEXT[:200]))
    engine.submit(_request("second", TEXT[:200]))
    deltas = engine.step()

    engine.abort("first")

    told = _run(engine, "second", deltas)
    assert tuple(token for delta in told for token in delta.token_ids) == expected
    assert [delta.num_cached for delta in told[:2]] == [64, 0]
    assert told[-1].usage is not None
    assert told[-1].usage.cached_tokens == 64


def test_another_proxy_or_a_reloaded_one_finds_the_prompt_read(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)
    engine.generate([_request("before", TEXT[:150], PREFIX)])
    engine.unload_proxy(PREFIX)
    engine.load_proxy(PREFIX, steering_policy(small_llm, seed=9), SKAM)

    answers = engine.generate([_request("after", TEXT[:150], PREFIX), _request("plain", TEXT[:150])])

    fresh = Engine(small_llm, EngineConfig(max_context=256, prefix_cache_tokens=0))
    fresh.load_proxy(PREFIX, steering_policy(small_llm, seed=9), SKAM)
    expected = fresh.generate([_request("after", TEXT[:150], PREFIX), _request("plain", TEXT[:150])])
    assert [answer.usage.cached_tokens for answer in answers] == [150, 150]
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    assert answers[0].token_ids != answers[1].token_ids


@pytest.mark.parametrize("max_tokens", [0, 2])
def test_a_prompt_whose_log_probabilities_are_wanted_is_read(small_llm: FrozenLLM, max_tokens: int) -> None:
    engine = _engine(small_llm)
    engine.generate([_request("before", TEXT[:150])])
    echoed = _request("echoed", TEXT[:150], max_tokens=max_tokens, prompt_logprobs=1, top_logprobs=1)
    engine.submit(echoed)
    engine.submit(_request("beside", TEXT[:150], max_tokens=1))

    [first, *_] = _run(engine, "echoed", [])

    [expected] = small_llm.token_logprobs([TEXT[:150]], [1])
    found = torch.tensor([logprob.logprob for logprob in first.prompt_logprobs])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert first.num_cached == 0


def test_a_prompt_that_is_only_read_needs_no_pass_when_it_is_kept(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)

    read, again = (engine.generate([_request(name, TEXT[:100], max_tokens=0)])[0] for name in ("read", "again"))

    assert (read.usage.cached_tokens, again.usage.cached_tokens) == (0, 100)
    assert (again.finish_reason, again.token_ids) == ("length", ())
    assert engine.num_steps == 2


def test_scopes_share_nothing(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm)

    answers = [
        engine.generate([_request("a", TEXT[:150], scope=scope)])[0] for scope in ("alice", "bob", "", "bob", "alice")
    ]

    assert [answer.usage.cached_tokens for answer in answers] == [0, 0, 0, 150, 150]
    assert len({answer.token_ids for answer in answers}) == 1


def test_a_cache_of_nothing_keeps_nothing(small_llm: FrozenLLM) -> None:
    engine = _engine(small_llm, prefix_cache_tokens=0)

    answers = engine.generate(_request(str(index), TEXT[:150]) for index in range(3))

    assert [answer.usage.cached_tokens for answer in answers] == [0, 0, 0]
    with pytest.raises(InvalidParameter, match=r"prefix_cache_tokens.*-1"):
        EngineConfig(prefix_cache_tokens=-1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_traffic_of_related_prompts_is_answered_as_if_each_came_alone(seed: int) -> None:
    """Arrivals, aborts and a cache of five blocks, drawn."""
    dice = random.Random(seed)
    llm = _llm("qwen2_with_biases", torch.bfloat16)
    engine = _engine(llm, max_running=4, prefill_tokens=80, prefix_cache_tokens=5 * 64)
    requests = [
        _request(
            str(index),
            TEXT[: dice.choice((3, 64, 70, 128, 150))] + OTHER[: dice.choice((0, 1, 64, 80))],
            dice.choice((None, PREFIX, CANDIDATE)),
            max_tokens=dice.randint(1, 12),
        )
        for index in range(24)
    ]
    deltas: list[Delta] = []
    gone = set()
    for request in requests:
        engine.submit(request)
        if dice.random() < 0.2:
            gone.add(victim := dice.choice(requests[: 1 + int(request.id)]).id)
            engine.abort(victim)
        for _ in range(dice.randint(0, 4)):
            deltas += engine.step()
    _run(engine, "", deltas)

    assert sum(delta.num_cached > 0 for delta in deltas) > 5
    for request in requests:
        told = [token for delta in deltas if delta.request_id == request.id for token in delta.token_ids]
        expected = _alone(llm, request).token_ids
        assert tuple(told) == (expected[: len(told)] if request.id in gone else expected)
