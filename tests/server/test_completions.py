"""POST /v1/completions: what is answered, whole and in chunks."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from proxy_model.decoding.request import Delta, TokenLogprob
from server.completions.choice import GrowingCompletion
from server.generation.order import Prompt
from server.schemas.completion_request import CompletionRequest
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import picky_policy, publish


def body(prompt: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt, "max_tokens": 8} | fields


def complete(server: RunningServer, prompt: Any = "hello", **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body(prompt, **fields), timeout=60)


def answer(server: RunningServer, prompt: Any = "hello", **fields: Any) -> dict[str, Any]:
    response = complete(server, prompt, **fields)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def texts(server: RunningServer, prompt: Any = "hello", **fields: Any) -> list[str]:
    return [choice["text"] for choice in answer(server, prompt, **fields)["choices"]]


def chunks(server: RunningServer, prompt: Any = "hello", **fields: Any) -> list[dict[str, Any]]:
    response = complete(server, prompt, stream=True, **fields)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def joined(parts: list[dict[str, Any]], index: int) -> str:
    return "".join(choice["text"] for part in parts for choice in part["choices"] if choice["index"] == index)


def joined_logprobs(parts: list[dict[str, Any]], index: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for choice in (choice for part in parts for choice in part["choices"]):
        if choice["index"] == index and choice["logprobs"]:
            for name, column in columns.items():
                column += choice["logprobs"][name]
    return columns


def test_an_answer_has_what_openai_says(server: RunningServer) -> None:
    found = answer(server, max_tokens=None)

    assert found["object"] == "text_completion"
    assert found["id"].startswith("cmpl-")
    assert found["model"] == "tiny"
    assert found["system_fingerprint"].endswith(":base")
    [choice] = found["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
    assert len(choice["text"]) == 16
    usage = found["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 16, 21)


def test_a_prompt_is_text_or_token_ids_alone_or_in_a_list(server: RunningServer) -> None:
    ids = [ord(character) - 0x21 for character in "hello"]  # as the tiny tokenizer counts
    expected = texts(server, "hello")

    assert texts(server, ["hello"]) == expected
    assert texts(server, ids) == expected
    assert texts(server, [ids]) == expected
    assert texts(server, ["hello", "there"]) == expected + texts(server, "there")
    assert texts(server, [ids, [3]]) == expected + texts(server, [3])


def test_nothing_is_what_the_llm_begins_a_text_with(server: RunningServer) -> None:
    end = server.llm.tokenizer.document_start()

    assert texts(server, "") == texts(server, None) == texts(server, end)
    assert answer(server, "")["usage"]["prompt_tokens"] == 1


def test_special_tokens_in_a_prompt_are_read_as_such(server: RunningServer) -> None:
    assert answer(server, "a<|end|>b")["usage"]["prompt_tokens"] == 3
    assert answer(server, "a<|end|>b", echo=True, max_tokens=0)["choices"][0]["text"] == "a<|end|>b"


def test_choices_are_counted_prompt_by_prompt_and_prompts_once(server: RunningServer) -> None:
    fields: dict[str, Any] = {"n": 2, "seed": 4, "temperature": 1.5}
    found = answer(server, ["hello", "you"], **fields)

    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in found["choices"]] == texts(server, "hello", **fields) + texts(
        server, "you", **fields
    )
    assert found["choices"][0]["text"] != found["choices"][1]["text"]
    assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (8, 32)


def test_echo_repeats_the_prompt(server: RunningServer) -> None:
    [plain], [echoed] = texts(server, "h\u00e9llo "), texts(server, "h\u00e9llo ", echo=True)

    assert echoed == "h\u00e9llo " + plain
    assert texts(server, "h\u00e9llo ", echo=True, max_tokens=0) == ["h\u00e9llo "]
    usage = answer(server, "hello", echo=True, max_tokens=0)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 0)


def test_logprobs_have_four_columns_and_the_token_itself_among_the_likeliest(server: RunningServer) -> None:
    [choice] = answer(server, logprobs=2, temperature=1.9, seed=8)["choices"]

    columns = choice["logprobs"]
    assert columns.keys() == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert "".join(columns["tokens"]) == choice["text"]
    assert columns["text_offset"] == [0, 1, 2, 3, 4, 5, 6, 7]
    for token, logprob, top in zip(columns["tokens"], columns["token_logprobs"], columns["top_logprobs"], strict=True):
        assert top[token] == logprob
        assert len(top) in (2, 3)
        assert max(top.values()) <= 0
    assert any(len(top) == 3 for top in columns["top_logprobs"])


def test_no_likeliest_tokens_leaves_the_token_itself(server: RunningServer) -> None:
    columns = answer(server, logprobs=0)["choices"][0]["logprobs"]

    expected = [{token: value} for token, value in zip(columns["tokens"], columns["token_logprobs"], strict=True)]
    assert columns["top_logprobs"] == expected


def test_an_echo_with_logprobs_scores_the_prompt_as_an_answer_is_scored(server: RunningServer) -> None:
    [spoken] = answer(server, "hello", logprobs=1)["choices"]

    [scored] = answer(server, "hello" + spoken["text"], logprobs=1, echo=True, max_tokens=0)["choices"]

    columns, expected = scored["logprobs"], spoken["logprobs"]
    assert "".join(columns["tokens"]) == scored["text"] == "hello" + spoken["text"]
    assert columns["text_offset"] == list(range(13))
    assert (columns["token_logprobs"][0], columns["top_logprobs"][0]) == (None, None)
    assert columns["token_logprobs"][5:] == pytest.approx(expected["token_logprobs"], abs=1e-3)
    assert [list(top) for top in columns["top_logprobs"][5:]] == [list(top) for top in expected["top_logprobs"]]


def test_special_tokens_of_a_prompt_are_shown_by_their_names(server: RunningServer) -> None:
    end = server.llm.tokenizer.document_start()

    [choice] = answer(server, [*end, 5, *end], echo=True, logprobs=1, stop_token_ids=list(range(64)))["choices"]

    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"][:3] == ["<|end|>", "&", "<|end|>"]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"] == "<|end|>&<|end|>"


def test_an_end_token_has_an_entry_but_no_text() -> None:
    growing = GrowingCompletion(0, Prompt((1,)), CompletionRequest(model="tiny", prompt="a", logprobs=0))
    end = TokenLogprob(9, "<|end|>", b"", -0.5)

    part = growing.add(Delta(request_id="r", token_ids=(9,), logprobs=(end,), finish_reason="stop"))

    assert part.logprobs is not None
    assert (part.logprobs.tokens, part.logprobs.top_logprobs) == ([""], [{"<|end|>": -0.5}])


def test_a_character_of_two_tokens_keeps_the_columns_in_step(server: RunningServer) -> None:
    [choice] = answer(server, "\u00e9", logprobs=0, echo=True, max_tokens=1)["choices"]

    columns = choice["logprobs"]
    assert len(columns["tokens"]) == 3
    assert "".join(columns["tokens"]) == choice["text"]
    assert columns["text_offset"][2] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.9, "seed": 3, "n": 2},
        {"stop": ["ab", "}"], "max_tokens": 30},
        {"echo": True},
        {"echo": True, "logprobs": 3, "temperature": 1.9, "seed": 1},
        {"echo": True, "logprobs": 1, "max_tokens": 0},
    ],
)
def test_streamed_is_not_streamed(server: RunningServer, fields: dict[str, Any]) -> None:
    prompts = ["hello", "you"]
    whole = answer(server, prompts, **fields)["choices"]

    parts = chunks(server, prompts, **fields)

    for choice in whole:
        assert joined(parts, choice["index"]) == choice["text"]
        if choice["logprobs"]:
            assert joined_logprobs(parts, choice["index"]) == choice["logprobs"]
    ends = [choice for part in parts for choice in part["choices"] if choice["finish_reason"]]
    assert sorted(end["index"] for end in ends) == [choice["index"] for choice in whole]
    assert all(end["text"] == "" for end in ends)


def test_a_stream_ends_with_its_usage_if_asked(server: RunningServer) -> None:
    parts = chunks(server, "hello", stream_options={"include_usage": True})

    assert {part["object"] for part in parts} == {"text_completion"}
    assert len({part["id"] for part in parts}) == 1
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["total_tokens"] == 13
    assert all(part["usage"] is None for part in parts[:-1])
    assert all("usage" not in part for part in chunks(server, "hello"))


def test_every_chunk_tells_the_usage_so_far_if_asked(server: RunningServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    parts = chunks(server, "hello", max_tokens=2, stream_options=options)

    assert [part["usage"]["completion_tokens"] for part in parts] == [1, 2, 2, 2]


def test_the_best_of_some_answers_are_the_likeliest(server: RunningServer) -> None:
    fields: dict[str, Any] = {"seed": 2, "temperature": 2.0, "logprobs": 0}
    drawn = answer(server, n=5, **fields)["choices"]
    ranked = sorted(drawn, key=lambda choice: -sum(choice["logprobs"]["token_logprobs"]))

    best = answer(server, ["hello", "hello"], n=2, best_of=5, **fields)

    expected = [choice["text"] for choice in ranked[:2]]
    assert expected != [choice["text"] for choice in drawn[:2]]
    assert [choice["text"] for choice in best["choices"]] == expected * 2
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2, 3]
    assert best["usage"]["completion_tokens"] == 80
    unscored = answer(server, n=2, best_of=5, seed=2, temperature=2.0)["choices"]
    assert [(choice["text"], choice["logprobs"]) for choice in unscored] == [(text, None) for text in expected]


def test_a_proxy_decides_and_reports_here_too(start: Callable[..., RunningServer]) -> None:
    server = start()
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: server.service.serving().reloader.table.names() == ["helpful"])

    found = answer(server, ["a", "b"], proxy={"return_decisions": True})
    last = chunks(server, ["a", "b"])[-1]

    assert found["system_fingerprint"].endswith(":helpful@1")
    assert found["proxy"] == {"id": "helpful", "version": 1, "accepted": 16, "rejections": 32, "forced": 16}
    assert [len(position["candidates"]) for position in found["choices"][1]["proxy"]["decisions"]] == [3] * 8
    assert last["proxy"] == found["proxy"]
    assert answer(server, model="tiny:base")["proxy"] is None


def test_a_prompt_that_is_only_read_counts_its_tokens(server: RunningServer) -> None:
    before = server.metric("prompt_tokens_total")

    usage = answer(server, "hello", echo=True, max_tokens=0)["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 0)
    eventually(lambda: server.metric("prompt_tokens_total") >= before + 5)
    assert server.metric("prompt_tokens_total") == before + 5


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"prompt": []}, "prompt", "empty_array"),
        ({"prompt": [[]]}, "prompt", None),
        ({"prompt": ["a", 5]}, "prompt[1]", "invalid_type"),
        ({"prompt": [-1]}, "prompt", None),
        ({"prompt": [100_000]}, "prompt", "invalid_value"),
        ({"prompt": [100_000], "echo": True}, "prompt", "invalid_value"),
        ({"prompt": [2**70]}, "prompt", None),
        ({"prompt": ["a"] * 300}, "prompt", "array_above_max_length"),
        ({"prompt": ["a"] * 20, "n": 15}, "prompt", "array_above_max_length"),
        ({"prompt": "x" * 600}, "prompt", "context_length_exceeded"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 600}, "prompt", "context_length_exceeded"),
        ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"n": 17}, "n", "integer_above_max_value"),
        ({"best_of": 17}, "best_of", "integer_above_max_value"),
        ({"best_of": 2, "n": 3}, "best_of", "invalid_value"),
        ({"best_of": 3, "stream": True}, "best_of", "invalid_value"),
        ({"suffix": "end"}, "suffix", "unsupported_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"proxy": {"p_t": 2}}, "proxy.p_t", "decimal_above_max_value"),
    ],
)
def test_a_wrong_field_is_named(server: RunningServer, fields: dict[str, Any], param: str, code: str | None) -> None:
    response = httpx.post(f"{server.url}/v1/completions", json=body() | fields)

    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param) if code is None else (error["param"], error["code"]) == (param, code)


def test_a_missing_prompt_is_not_an_empty_one(server: RunningServer) -> None:
    error = httpx.post(f"{server.url}/v1/completions", json={"model": "tiny"}).json()["error"]

    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


def test_an_unknown_model_is_404_and_strict_refuses_unknown_fields(
    start: Callable[..., RunningServer],
) -> None:
    server = start(strict=True)

    assert complete(server, model="gpt-9").status_code == 404
    error = complete(server, colour="red").json()["error"]
    assert (error["param"], error["code"]) == ("colour", "unsupported_parameter")
