"""The official OpenAI SDK against the server: sync and async, whole and streamed, the extension in `extra_body`."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel

from proxy_model.llm.frozen_llm import FrozenLLM
from tests.front_door.conftest import LLM
from tests.front_door.rank_proxies import expected_texts
from tests.front_door.server_process import ServerProcess, eventually

PROMPT = "How do I stay calm?"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]
LENGTH = 12
FIELDS: dict[str, Any] = {"messages": MESSAGES, "max_tokens": LENGTH, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """As the README makes one; the server has no keys, so any will do."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def texts(llm: FrozenLLM) -> Sequence[str]:
    """The right answers, by rank."""
    return expected_texts(llm, PROMPT, LENGTH)


def extension(answer: BaseModel) -> Any:
    """The `proxy` of an answer, a chunk or a choice."""
    return (answer.model_extra or {}).get("proxy")


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_an_answer_is_the_decode_loops_and_names_its_proxy(client: openai.OpenAI, texts: Sequence[str]) -> None:
    answer = client.chat.completions.create(model=LLM, **FIELDS)

    assert answer.choices[0].message.content == texts[1]
    assert (answer.model, answer.choices[0].finish_reason) == (LLM, "length")
    assert (answer.system_fingerprint or "").endswith(":helpful@1")
    assert extension(answer) == {"id": "helpful", "version": 1, "accepted": 12, "rejections": 12, "forced": 0}
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.usage.total_tokens - answer.usage.prompt_tokens) == (12, 12)


@pytest.mark.parametrize(("model", "rank"), [(LLM, 1), (f"{LLM}:harmless@1", 1), (f"{LLM}:base", 0)])
def test_a_stream_is_the_whole_answer_in_chunks(
    client: openai.OpenAI, texts: Sequence[str], model: str, rank: int
) -> None:
    options: Any = {"include_usage": True}

    chunks = list(client.chat.completions.create(model=model, stream=True, stream_options=options, **FIELDS))

    assert joined(chunks) == texts[rank]
    assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["length"]
    assert len({(chunk.id, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    report = extension(chunks[-1])
    assert report is None if rank == 0 else report["rejections"] == LENGTH


def test_the_async_client_hears_the_same(server: ServerProcess, texts: Sequence[str]) -> None:
    async def ask() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            whole, stream = await asyncio.gather(
                client.chat.completions.create(model=LLM, **FIELDS),
                client.chat.completions.create(model=f"{LLM}:helpful", stream=True, **FIELDS),
            )
            return whole.choices[0].message.content, joined([chunk async for chunk in stream])

    assert asyncio.run(ask()) == (texts[1], texts[1])


def test_extra_body_switches_the_proxy_off(client: openai.OpenAI, texts: Sequence[str]) -> None:
    body = {"ignore_eos": True, "proxy": {"enabled": False}}

    answer = client.chat.completions.create(model=LLM, **FIELDS | {"extra_body": body})

    assert answer.choices[0].message.content == texts[0]
    assert extension(answer) is None
    assert (answer.system_fingerprint or "").endswith(":base")


def test_extra_body_shows_every_decision(client: openai.OpenAI) -> None:
    body = {"ignore_eos": True, "proxy": {"return_decisions": True}}

    chunks = list(client.chat.completions.create(model=LLM, stream=True, **FIELDS | {"extra_body": body}))

    heard = [extension(choice) for chunk in chunks for choice in chunk.choices]
    positions = [position for found in heard if found for position in found.get("decisions") or ()]
    assert [[seen["is_accepted"] for seen in position["candidates"]] for position in positions] == [
        [False, True]
    ] * LENGTH
    assert all(seen["accept_prob"] < 0.5 for position in positions for seen in position["candidates"][:1])


def test_extra_body_masks_every_reject(client: openai.OpenAI, texts: Sequence[str]) -> None:
    body = {"ignore_eos": True, "proxy": {"p_t": 1.0}}

    answer = client.chat.completions.create(model=LLM, **FIELDS | {"extra_body": body})

    assert answer.choices[0].message.content == texts[0]
    assert extension(answer) == {"id": "helpful", "version": 1, "accepted": 12, "rejections": 0, "forced": 12}


def test_log_probabilities_join_to_the_content(client: openai.OpenAI, texts: Sequence[str]) -> None:
    answer = client.chat.completions.create(model=LLM, logprobs=True, top_logprobs=2, **FIELDS)

    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    assert "".join(entry.token for entry in content) == texts[1]
    # The proxy took the second candidate everywhere; log-probabilities are the LLM's.
    assert all(entry.logprob == entry.top_logprobs[1].logprob < entry.top_logprobs[0].logprob for entry in content)


def test_raw_responses_carry_the_headers(client: openai.OpenAI) -> None:
    fields = FIELDS | {"extra_body": {"ignore_eos": True, "length_penalty": 0.5}}
    raw = client.chat.completions.with_raw_response.create(
        model=LLM, extra_headers={"x-request-id": "mine-17"}, **fields
    )

    assert raw.headers["x-request-id"] == "mine-17"
    assert raw.headers["x-ignored-fields"] == "length_penalty"
    assert raw.parse().choices[0].finish_reason == "length"


def test_the_models_are_listed_with_what_answers(client: openai.OpenAI) -> None:
    found = {model.id: extension(model) for model in client.models.list()}

    assert found == {
        LLM: "helpful@1",
        f"{LLM}:base": None,
        f"{LLM}:helpful": "helpful@1",
        f"{LLM}:harmless": "harmless@1",
        f"{LLM}:helpful@1": "helpful@1",
        f"{LLM}:harmless@1": "harmless@1",
    }
    assert extension(client.models.retrieve(f"{LLM}:harmless")) == "harmless@1"


def test_closing_streams_frees_their_slots(client: openai.OpenAI, server: ServerProcess) -> None:
    fields = FIELDS | {"max_tokens": 900}
    streams = [client.chat.completions.create(model=LLM, stream=True, **fields) for _ in range(3)]
    for stream in streams:
        assert [next(stream).id, next(stream).id]
    assert server.metric("num_requests_running") == 3

    for stream in streams:
        stream.close()

    eventually(lambda: server.metric("num_requests_running") == 0, "a free engine", 10)
    assert server.metric("proxy_requests_total", status="abort") == 3


class Mood(BaseModel):
    """Short, so that even a random LLM comes to its end."""

    calm: bool
    colour: Literal["red", "green"]


def test_parse_answers_with_an_object(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model=LLM, messages=MESSAGES, response_format=Mood)

    message = parsed.choices[0].message
    assert isinstance(message.parsed, Mood)
    assert Mood.model_validate_json(message.content or "") == message.parsed


def test_the_streaming_helper_tells_what_the_whole_answer_says(client: openai.OpenAI, texts: Sequence[str]) -> None:
    stop = texts[1][-4:]  # an answer that ends by its length is an exception to the helper
    expected = texts[1].partition(stop)[0]

    with client.chat.completions.stream(model=LLM, **FIELDS, stop=stop) as stream:
        events = list(stream)
        final = stream.get_final_completion()

    assert "".join(event.delta for event in events if event.type == "content.delta") == expected
    assert [event.content for event in events if event.type == "content.done"] == [expected]
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == (expected, "stop")


def test_the_async_streaming_helper_parses(server: ServerProcess) -> None:
    async def ask() -> Mood | None:
        async with (
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
            client.chat.completions.stream(model=LLM, messages=MESSAGES, response_format=Mood) as stream,
        ):
            async for _ in stream:
                pass
            return (await stream.get_final_completion()).choices[0].message.parsed

    assert isinstance(asyncio.run(ask()), Mood)
