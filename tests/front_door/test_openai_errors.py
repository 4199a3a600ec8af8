"""The SDK's error classes, on a server with a key, two slots and no queue to speak of."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess

KEY = "sk-front-door-1"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How do I stay calm?"}]
DEFAULTS: dict[str, Any] = {"model": LLM, "messages": MESSAGES, "stream": True}


@pytest.fixture(scope="module")
def server(start: StartServer, publisher: RankPublisher) -> ServerProcess:
    """Two answers run and eight prompts may be on their way in; one more is too many."""
    publisher.publish()
    return start("--max-running", "2", "--max-waiting", "0", PROXY_RLHF_API_KEYS=KEY)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["gpt-9", f"{LLM}:nobody", f"{LLM}:helpful@77", f"{LLM}:"])
def test_an_unknown_model_is_not_found(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as found:
        client.chat.completions.create(model=model, messages=MESSAGES)

    assert (found.value.code, found.value.param, found.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert found.value.request_id


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"max_tokens": 10_000}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "calm " * 900}]}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"extra_body": {"proxy": {"p_t": 1.5}}}, "proxy.p_t", "decimal_above_max_value"),
        ({"extra_body": {"proxy": {"pt": 0.5}}}, "proxy.pt", "unknown_parameter"),
    ],
)
def test_a_bad_request_names_its_parameter(
    client: openai.OpenAI, fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(**DEFAULTS | fields)

    assert (found.value.param, found.value.code) == (param, code)


def test_a_wrong_key_is_an_authentication_error(server: ServerProcess) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-front-door-2", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as found,
    ):
        stranger.chat.completions.create(model=LLM, messages=MESSAGES)

    assert found.value.code == "invalid_api_key"
    assert KEY not in str(found.value)


def test_one_too_many_is_a_rate_limit_error_that_the_sdk_retries(server: ServerProcess) -> None:
    refused = [answer for answer in asyncio.run(ask(server, 24, 200, max_retries=0)) if answer != "length"]
    retried = asyncio.run(ask(server, 12, 30, max_retries=20))

    always_fit = 2 if os.environ.get("TEST_ENGINE") == "vllm" else 8  # the built-in engine reads eight prompts ahead
    assert 1 <= len(refused) <= 24 - always_fit
    for error in refused:
        assert isinstance(error, openai.RateLimitError)
        assert error.code == "rate_limit_exceeded"
        assert int(error.response.headers["retry-after"]) >= 1
    assert retried == ["length"] * 12
    assert server.metric("admission_rejections_total", reason="queue_full") >= len(refused)


async def ask(server: ServerProcess, count: int, max_tokens: int, *, max_retries: int) -> list[object]:
    """Finish reasons or errors of `count` answers at once."""
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=max_retries) as client:

        async def one() -> str:
            body = {"ignore_eos": True}
            answer = await client.chat.completions.create(
                model=LLM, messages=MESSAGES, max_tokens=max_tokens, extra_body=body
            )
            return answer.choices[0].finish_reason

        return list(await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True))
