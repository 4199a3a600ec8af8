"""POST /v1/chat/completions: what is answered, whole and in chunks."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import picky_policy, publish


def chunks(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    response = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(stream=True, **fields), timeout=60)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def joined(parts: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for part in parts for choice in part["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_an_answer_has_what_openai_says_and_names_its_model(server: RunningServer) -> None:
    answer = server.chat().json()

    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "tiny"
    assert answer["system_fingerprint"].endswith(":base")
    assert answer["proxy"] is None
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert len(choice["message"]["content"]) == 8
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 8, 18)


def test_a_stream_follows_the_grammar(server: RunningServer) -> None:
    parts = chunks(server, stream_options={"include_usage": True})

    assert len({part["id"] for part in parts}) == 1
    assert all(part["object"] == "chat.completion.chunk" for part in parts)
    first = parts[0]["choices"][0]
    assert (first["delta"]["role"], first["delta"]["content"]) == ("assistant", "")
    reasons = [choice["finish_reason"] for part in parts for choice in part["choices"]]
    assert reasons[-1] == "length"
    assert reasons.count(None) == len(reasons) - 1
    assert parts[-2]["choices"][0]["delta"] == {}
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["total_tokens"] == 18
    assert all(part["usage"] is None for part in parts[:-1])


def test_a_stream_without_usage_does_not_mention_it(server: RunningServer) -> None:
    assert all("usage" not in part for part in chunks(server))


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.9, "seed": 3}, {"stop": ["ab", "}"]}, {"max_tokens": 40}])
def test_streamed_is_not_streamed(start: Callable[..., RunningServer], fields: dict[str, Any]) -> None:
    server = start()
    whole = server.chat(**fields).json()["choices"][0]

    parts = chunks(server, **fields)

    assert joined(parts) == whole["message"]["content"]
    assert parts[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]


def test_n_with_a_seed_gives_distinct_answers_that_come_again(server: RunningServer) -> None:
    fields: dict[str, Any] = {"n": 3, "seed": -5, "temperature": 1.5}
    answers = [choice["message"]["content"] for choice in server.chat(**fields).json()["choices"]]

    again = [choice["message"]["content"] for choice in server.chat(**fields).json()["choices"]]
    streamed = chunks(server, **fields)

    assert len(set(answers)) == 3
    assert again == answers
    assert [joined(streamed, index) for index in range(3)] == answers
    assert server.chat(seed=-5, temperature=1.5).json()["choices"][0]["message"]["content"] == answers[0]


def test_n_counts_the_prompt_once(server: RunningServer) -> None:
    usage = server.chat(n=2).json()["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 16)


def test_a_stop_string_ends_the_answer_and_is_not_in_it(server: RunningServer) -> None:
    content = server.chat(max_tokens=20).json()["choices"][0]["message"]["content"]
    stop = content[5:7]

    choice = server.chat(max_tokens=20, stop=stop, logprobs=True).json()["choices"][0]

    shown = content[: content.index(stop)]
    assert choice["message"]["content"] == shown
    assert choice["finish_reason"] == "stop"
    assert "".join(entry["token"] for entry in choice["logprobs"]["content"]) == shown


def test_logprobs_join_to_the_content_and_are_ordered(server: RunningServer) -> None:
    choice = server.chat(max_tokens=30, logprobs=True, top_logprobs=2, temperature=1.9, seed=8).json()["choices"][0]

    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert bytes(b for e in entries for b in e["bytes"]).decode("utf-8", "replace") == choice["message"]["content"]
    for entry in entries:
        first, second = entry["top_logprobs"]
        assert first["logprob"] >= second["logprob"]
        assert entry["logprob"] <= first["logprob"] <= 0


def test_streamed_logprobs_are_those_of_the_whole_answer(server: RunningServer) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 1, "temperature": 1.9, "seed": 8, "max_tokens": 30}
    whole = server.chat(**fields).json()["choices"][0]["logprobs"]["content"]

    parts = chunks(server, **fields)

    streamed = [e for p in parts for c in p["choices"] for e in (c["logprobs"] or {"content": []})["content"]]
    assert streamed == whole


def test_the_default_proxy_answers_under_the_plain_name_and_reports(start: Callable[..., RunningServer]) -> None:
    server = start()
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: server.service.serving().reloader.table.names() == ["helpful"])

    plain, base = server.chat().json(), server.chat(model="tiny:base").json()

    assert plain["system_fingerprint"].endswith(":helpful@1")
    assert plain["proxy"] == {"id": "helpful", "version": 1, "accepted": 8, "rejections": 16, "forced": 8}
    assert base["proxy"] is None
    assert plain["choices"][0]["message"]["content"] != base["choices"][0]["message"]["content"]
    assert server.chat(proxy={"enabled": False}).json()["choices"] == base["choices"]
    assert server.chat(model="tiny:helpful@1").json()["choices"] == plain["choices"]
    assert server.metric('proxy_rejected_tokens_total{model="tiny",proxy="helpful",version="1"}') == 32


def test_usage_that_was_not_asked_for_is_not_told_in_every_chunk_either(server: RunningServer) -> None:
    parts = chunks(server, max_tokens=2, stream_options={"continuous_usage_stats": True})

    assert len(parts) > 2
    assert not any("usage" in part for part in parts)


def test_every_chunk_tells_the_usage_so_far_if_asked(server: RunningServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    parts = chunks(server, max_tokens=3, stream_options=options)
    told = [(part["usage"]["prompt_tokens"], part["usage"]["completion_tokens"]) for part in parts]
    two = chunks(server, max_tokens=3, n=2, stream_options=options)

    assert told == [(10, 0), (10, 1), (10, 2), (10, 3), (10, 3), (10, 3)]
    assert all(part["usage"]["total_tokens"] == 10 + count for part, (_, count) in zip(parts, told, strict=True))
    assert [part["usage"]["completion_tokens"] for part in two][-1] == 6


def test_the_last_chunk_reports_the_proxy(start: Callable[..., RunningServer]) -> None:
    server = start()
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: server.service.serving().reloader.table.names())

    parts = chunks(server, stream_options={"include_usage": True})

    expected = {"id": "helpful", "version": 1, "accepted": 8, "rejections": 16, "forced": 8}
    assert parts[-1]["proxy"] == expected
    assert parts[-2]["proxy"] == expected


def test_decisions_are_told_when_asked_for(start: Callable[..., RunningServer]) -> None:
    server = start()
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: server.service.serving().reloader.table.names())

    choice = server.chat(proxy={"return_decisions": True}).json()["choices"][0]

    positions = choice["proxy"]["decisions"]
    assert len(positions) == 8
    for position in positions:
        first, second, third = position["candidates"]
        assert [first["is_accepted"], second["is_accepted"], third["is_accepted"]] == [False, False, True]
        assert first["prob"] >= second["prob"] >= third["prob"]
        assert first["accept_prob"] < 0.5
        assert (first["is_free"], third["is_free"], third["accept_prob"]) == (True, False, None)


def test_ignored_fields_are_named_and_no_ops_are_not(server: RunningServer) -> None:
    response = server.chat(length_penalty=0.5, logit_bias={}, frequency_penalty=0.5, best_of=2)

    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "best_of,length_penalty"


def test_strict_refuses_them(start: Callable[..., RunningServer]) -> None:
    error = start(strict=True).chat(length_penalty=0.5).json()["error"]

    assert (error["param"], error["code"]) == ("length_penalty", "unsupported_parameter")


def test_proxy_settings_without_a_proxy_are_ignored_aloud(server: RunningServer) -> None:
    response = server.chat(model="tiny:base", proxy={"p_t": 0.5})

    assert response.headers["x-ignored-fields"] == "proxy.p_t"


def test_every_role_and_text_parts_are_understood(server: RunningServer) -> None:
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "x"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "function", "content": "y", "name": "f"},
        {"role": "user", "content": parts},
    ]

    in_parts = server.chat(messages=messages).json()

    as_text = [messages[0] | {"role": "system"}, {"role": "assistant", "content": "no"}, messages[2] | {"content": "y"}]
    plain = server.chat(messages=[*as_text, {"role": "user", "content": "hello"}]).json()
    assert in_parts["choices"] == plain["choices"]
    assert in_parts["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
    assert plain["usage"]["prompt_tokens_details"]["cached_tokens"] == plain["usage"]["prompt_tokens"]


def test_a_request_id_is_echoed_if_it_is_harmless(server: RunningServer) -> None:
    def echoed(given: str) -> str:
        return httpx.get(f"{server.url}/ready", headers={"x-request-id": given}).headers["x-request-id"]

    assert echoed("abc-1") == "abc-1"
    assert echoed("a b").startswith("req_")
