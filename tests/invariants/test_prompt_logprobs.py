"""A prompt's log-probabilities are those of one pass over the text, however it is cut, whatever runs beside."""

import pytest
import torch

from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Delta, GenerationRequest, SamplingParams, TokenLogprob
from proxy_model.llm.frozen_llm import FrozenLLM

CONTEXT = 256
PROMPTS = [
    tuple(torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist())
    for length in (1, 2, 16, 17, 70)
]


def _engine(llm: FrozenLLM) -> Engine:
    return Engine(llm, EngineConfig(max_running=4, prefill_tokens=16, num_staging=2, max_context=CONTEXT))


def _request(name: str, prompt: tuple[int, ...], max_tokens: int, num_top: int | None = 2) -> GenerationRequest:
    params = SamplingParams(max_tokens=max_tokens, prompt_logprobs=num_top, top_logprobs=num_top, ignore_eos=True)
    return GenerationRequest(id=name, prompt_token_ids=prompt, params=params)


def _run(engine: Engine, requests: list[GenerationRequest]) -> dict[str, list[Delta]]:
    deltas: dict[str, list[Delta]] = {request.id: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for delta in engine.step():
            deltas[delta.request_id].append(delta)
    return deltas


def _values(logprobs: tuple[TokenLogprob, ...]) -> torch.Tensor:
    return torch.tensor([logprob.logprob for logprob in logprobs])


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_they_are_those_of_one_pass_over_the_whole_text(small_llm: FrozenLLM, max_tokens: int) -> None:
    requests = [_request(str(index), prompt, max_tokens) for index, prompt in enumerate(PROMPTS)]

    deltas = _run(_engine(small_llm), requests)

    for request in requests:
        first = deltas[request.id][0]
        [expected] = small_llm.token_logprobs([request.prompt_token_ids], [1])
        assert [logprob.token_id for logprob in first.prompt_logprobs] == list(request.prompt_token_ids[1:])
        torch.testing.assert_close(_values(first.prompt_logprobs), expected, rtol=1e-3, atol=1e-3)
        assert all(logprob.top[0][3] >= logprob.logprob for logprob in first.prompt_logprobs)
        assert all(delta.prompt_logprobs == () for delta in deltas[request.id][1:])


def test_an_answer_that_is_read_as_a_prompt_keeps_its_log_probabilities(small_llm: FrozenLLM) -> None:
    prompt = PROMPTS[3]
    answered = _run(_engine(small_llm), [_request("a", prompt, 9)])["a"]
    answer = tuple(token for delta in answered for token in delta.token_ids)

    [read] = _run(_engine(small_llm), [_request("b", prompt + answer, 0)])["b"]

    spoken = tuple(logprob for delta in answered for logprob in delta.logprobs)
    torch.testing.assert_close(_values(read.prompt_logprobs[-9:]), _values(spoken), rtol=1e-3, atol=1e-3)


def test_prompts_that_are_only_read_end_at_once_and_leave_their_neighbours_alone(small_llm: FrozenLLM) -> None:
    answers = [_request(f"answer{index}", prompt, 20, None) for index, prompt in enumerate(PROMPTS[1:])]
    reads = [_request(f"read{index}", prompt, 0) for index, prompt in enumerate(PROMPTS)]
    alone = {request.id: _run(_engine(small_llm), [request])[request.id] for request in answers}
    engine = _engine(small_llm)

    together = _run(engine, [request for pair in zip(answers, reads[1:], strict=True) for request in pair] + reads[:1])

    for request in answers:
        tokens = [delta.token_ids for delta in together[request.id]]
        assert tokens == [delta.token_ids for delta in alone[request.id]]
    for request in reads:
        [delta] = together[request.id]
        assert (delta.finish_reason, delta.token_ids, delta.text) == ("length", (), "")
        assert delta.usage is not None
        assert (delta.usage.prompt_tokens, delta.usage.completion_tokens) == (len(request.prompt_token_ids), 0)
    assert engine.num_running == 0


def test_a_prompt_that_fills_the_context_can_be_read(small_llm: FrozenLLM) -> None:
    prompt = tuple(range(8, 8 + CONTEXT))

    [delta] = _run(_engine(small_llm), [_request("full", prompt, 0, 0)])["full"]

    assert len(delta.prompt_logprobs) == CONTEXT - 1
    assert delta.prompt_logprobs[0].top == ()
