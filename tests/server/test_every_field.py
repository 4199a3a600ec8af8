"""Every field of the SDK's requests is honoured, reported as ignored, or refused: a new one must be judged."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, get_type_hints

import httpx
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as StreamedChatParams
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as CompletionParams
from openai.types.completion_create_params import CompletionCreateParamsStreaming as StreamedCompletionParams

from server.settings import Settings
from tests.server.conftest import PATIENCE_SECONDS, RunningServer, _start

Fate = Literal["honoured", "ignored", "refused"]

TOOL = {"type": "function", "function": {"name": "f"}}
SAMPLING: dict[str, tuple[Any, Fate]] = {
    "model": ("tiny:base", "honoured"),
    "frequency_penalty": (0.5, "honoured"),
    "logit_bias": ({"5": 3}, "honoured"),
    "n": (2, "honoured"),
    "presence_penalty": (0.5, "honoured"),
    "seed": (7, "honoured"),
    "stop": (["zq"], "honoured"),
    "stream": (True, "honoured"),
    "temperature": (0.5, "honoured"),
    "top_p": (0.5, "honoured"),
    "user": ("ann", "honoured"),
}
CHAT = SAMPLING | {
    "messages": ([{"role": "user", "content": "again"}], "honoured"),
    "audio": ({"voice": "alloy", "format": "mp3"}, "ignored"),
    "function_call": ({"name": "f"}, "refused"),
    "functions": ([{"name": "f"}], "refused"),
    "logprobs": (True, "honoured"),
    "max_completion_tokens": (2, "honoured"),
    "max_tokens": (2, "honoured"),
    "metadata": ({"a": "b"}, "honoured"),
    "modalities": (["text", "audio"], "ignored"),
    "moderation": ({"model": "omni"}, "ignored"),
    "parallel_tool_calls": (False, "honoured"),
    "prediction": ({"type": "content", "content": "x"}, "ignored"),
    "prompt_cache_key": ("k", "ignored"),
    "prompt_cache_options": ({"mode": "implicit"}, "ignored"),
    "prompt_cache_retention": ("24h", "ignored"),
    "reasoning_effort": ("low", "ignored"),
    "response_format": ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": [1]}}}, "honoured"),
    "safety_identifier": ("s", "ignored"),
    "service_tier": ("flex", "ignored"),
    "store": (True, "honoured"),
    "stream_options": ({"include_usage": True}, "honoured"),
    "tool_choice": ("none", "honoured"),
    "tools": ([TOOL], "refused"),  # the tiny LLM's template has none
    "top_logprobs": (1, "honoured"),
    "verbosity": ("low", "ignored"),
    "web_search_options": ({}, "ignored"),
}
COMPLETION = SAMPLING | {
    "prompt": ("again", "honoured"),
    "best_of": (2, "honoured"),
    "echo": (True, "honoured"),
    "logprobs": (1, "honoured"),
    "max_tokens": (2, "honoured"),
    "stream_options": ({"include_usage": True}, "honoured"),
    "suffix": ("end", "refused"),
}
NEEDS: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
    "tool_choice": {"tools": [TOOL]},
}
ENDPOINTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/chat/completions": (CHAT, {"messages": [{"role": "user", "content": "hi"}]}),
    "/v1/completions": (COMPLETION, {"prompt": "hi"}),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, llm: Any) -> Iterator[dict[bool, RunningServer]]:
    """One that reports what it ignores, and a strict one."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), port=0)
    running = {is_strict: _start(llm, replace(settings, strict=is_strict)) for is_strict in (False, True)}
    yield running
    for one in running.values():
        one.server.should_exit = True
        one.thread.join(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("kinds", "judged"),
    [((ChatParams, StreamedChatParams), CHAT), ((CompletionParams, StreamedCompletionParams), COMPLETION)],
)
def test_no_field_of_the_sdk_is_forgotten(kinds: tuple[type, type], judged: dict[str, Any]) -> None:
    fields = {name for kind in kinds for name in get_type_hints(kind)}

    assert fields == judged.keys()


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, (judged, _) in ENDPOINTS.items() for name in judged])
def test_a_field_has_the_fate_that_is_declared(servers: dict[bool, RunningServer], path: str, name: str) -> None:
    judged, least = ENDPOINTS[path]
    value, fate = judged[name]
    limit = {} if name.startswith("max_") else {"max_tokens": 2}
    body = {"model": "tiny", **least, **limit, **NEEDS.get(name, {}), name: value}

    lenient, strict = (
        httpx.post(f"{servers[is_strict].url}{path}", json=body, timeout=60) for is_strict in (False, True)
    )

    if fate == "refused":
        assert (lenient.status_code, lenient.json()["error"]["param"]) == (400, name), lenient.text
        return
    assert lenient.status_code == 200, lenient.text
    assert lenient.headers.get("x-ignored-fields") == (name if fate == "ignored" else None)
    assert strict.status_code == (400 if fate == "ignored" else 200), strict.text
    assert fate != "ignored" or strict.json()["error"]["param"] == name


def test_an_option_of_a_stream_that_is_not_implemented_is_named(servers: dict[bool, RunningServer]) -> None:
    options = {"colour": 1, "include_obfuscation": True, "continuous_usage_stats": True}  # this one needs another
    response = servers[False].chat(stream=True, stream_options=options, max_tokens=2)

    names = ("colour", "continuous_usage_stats", "include_obfuscation")
    assert response.headers["x-ignored-fields"] == ",".join(f"stream_options.{name}" for name in names)
    harmless = servers[True].chat(
        stream=True, stream_options={"include_usage": True, "include_obfuscation": False}, max_tokens=2
    )
    assert harmless.status_code == 200
