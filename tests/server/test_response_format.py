"""`response_format` over HTTP: the form is kept, streamed or not; what cannot be kept is refused first."""

import json
from typing import Any

import pytest
from openai import BadRequestError, LengthFinishReasonError, OpenAI
from pydantic import BaseModel

from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import picky_policy, publish
from tests.server.test_reload import serves

POINT = {
    "type": "object",
    "properties": {"kind": {"enum": ["dot", "star"]}, "x": {"type": "integer", "minimum": 10, "maximum": 99}},
    "required": ["kind", "x"],
    "additionalProperties": False,
}
NAMED: dict[str, Any] = {"name": "point", "schema": POINT, "strict": True}


def by_schema(**parts: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {k: v for k, v in (NAMED | parts).items() if v is not None}}


def is_a_point(text: str) -> bool:
    point = json.loads(text)
    return list(point) == ["kind", "x"] and point["kind"] in ("dot", "star") and 10 <= point["x"] <= 99


def sdk(server: RunningServer) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("model", ["tiny:base", "tiny:helpful"])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_every_choice_follows_the_schema(server: RunningServer, model: str, temperature: float) -> None:
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: serves(server, 1))

    choices = server.chat(
        response_format=by_schema(), model=model, n=3, seed=5, temperature=temperature, max_tokens=400
    ).json()["choices"]

    assert [choice["finish_reason"] for choice in choices] == ["stop"] * 3
    assert all(is_a_point(choice["message"]["content"]) for choice in choices)


def test_a_stream_is_the_whole_and_a_short_answer_is_cut_with_length(server: RunningServer) -> None:
    client = sdk(server)
    asked: Any = {
        "model": "tiny:base",
        "messages": [{"role": "user", "content": "a point as JSON"}],
        "response_format": by_schema(),
    }

    whole = client.chat.completions.create(**asked, max_tokens=60)
    chunks = list(client.chat.completions.create(**asked, max_tokens=60, stream=True))
    short = client.chat.completions.create(**asked, max_tokens=4)

    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == whole.choices[0].message.content
    assert is_a_point(streamed)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert short.choices[0].finish_reason == "length"
    assert streamed.startswith(short.choices[0].message.content or "?")


class Dot(BaseModel):
    label: bool
    size: int | None


class Figure(BaseModel):
    dots: list[Dot]
    kind: str


def test_the_sdk_parses_a_pydantic_model(server: RunningServer) -> None:
    client = sdk(server)
    messages: Any = [{"role": "user", "content": "draw"}]
    asked: Any = {"model": "tiny:base", "messages": messages, "response_format": Figure, "temperature": 1.0}

    # the tiny LLM talks at random: a bias towards quotes and brackets that close lets it come to an end
    closing = {str(server.llm.tokenizer.encode(text)[0]): 30 for text in ('"', "]", "}", "1")}
    answer = client.chat.completions.parse(**asked, seed=1, max_tokens=300, logit_bias=closing)

    figure = answer.choices[0].message.parsed
    assert isinstance(figure, Figure)
    assert json.loads(answer.choices[0].message.content or "") == figure.model_dump()
    with pytest.raises(LengthFinishReasonError):
        client.chat.completions.parse(**asked, seed=1, max_tokens=3)


def test_json_mode_gives_an_object_and_wants_to_hear_of_json(server: RunningServer) -> None:
    asked = {"response_format": {"type": "json_object"}, "max_tokens": 40}
    closing = {str(server.llm.tokenizer.encode("}")[0]): 50}

    answered = server.chat("an object in JSON", **asked, logit_bias=closing)
    refused = server.chat("an object", **asked)

    assert json.loads(answered.json()["choices"][0]["message"]["content"]) == {}
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == "messages"
    assert error["message"] == (
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
    )


def test_text_is_the_default(server: RunningServer) -> None:
    plain, asked = server.chat("hi", seed=1), server.chat("hi", seed=1, response_format={"type": "text"})

    assert asked.json()["choices"] == plain.json()["choices"]


def closed(properties: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    } | parts


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("response_format", "param", "words"),
    [
        ({"type": "xml"}, "response_format.type", "Invalid value"),
        ({"type": "json_schema"}, "response_format.json_schema", "Missing required parameter"),
        (by_schema(name=None), "response_format.json_schema.name", "Missing required parameter"),
        (by_schema(schema=None), "response_format.json_schema.schema", "Missing required parameter"),
        (by_schema(name="a b"), "response_format.json_schema.name", "Invalid"),
        (by_schema(name="a" * 65), "response_format.json_schema.name", "Invalid"),
        (by_schema(schema={"type": "objekt"}, strict=False), "response_format", "Invalid type: objekt."),
        (by_schema(schema={"uniqueItems": True}, strict=None), "response_format", "uniqueItems"),
        (by_schema(schema={"$ref": "http://127.0.0.1:9/"}, strict=False), "response_format", "retriev"),
        (by_schema(schema=nested(52), strict=False), "response_format", "48 levels"),
        (by_schema(schema={"enum": ["é" * 40_000]}, strict=False), "response_format", "65536 bytes"),
        (
            by_schema(schema={"type": "array", "items": {}}),
            "response_format",
            "Invalid schema for response_format 'point': schema must be a JSON Schema of 'type: \"object\"', "
            "got 'type: \"array\"'.",
        ),
        (
            by_schema(schema=closed({"a": {"type": "object", "properties": {}}})),
            "response_format",
            "Invalid schema for response_format 'point': In context=('properties', 'a'), "
            "'additionalProperties' is required to be supplied and to be false.",
        ),
        (
            by_schema(schema=closed({"a": {"type": "integer"}, "b": {"type": "integer"}}, required=["a"])),
            "response_format",
            "In context=(), 'required' is required to be supplied and to be an array including every key in "
            "properties. Missing 'b'.",
        ),
        (
            by_schema(schema=closed({"a": {"anyOf": [{"type": "null"}, {"allOf": []}]}})),
            "response_format",
            "In context=('properties', 'a', 'anyOf', '1'), 'allOf' is not permitted.",
        ),
        (
            by_schema(schema=closed({"a": {"type": "array", "items": {"title": "x"}}})),
            "response_format",
            "In context=('properties', 'a', 'items'), schema must have a 'type' key.",
        ),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused(
    server: RunningServer, response_format: dict[str, Any], param: str, words: str
) -> None:
    response = server.chat("a point as JSON", response_format=response_format)

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]
    assert server.engine.num_running + server.engine.num_waiting == 0


def test_the_sdk_sees_the_refusal_as_a_bad_request(server: RunningServer) -> None:
    asked: Any = {"messages": [{"role": "user", "content": "x"}], "response_format": by_schema(schema={"type": 3})}

    with pytest.raises(BadRequestError) as refused:
        sdk(server).chat.completions.create(model="tiny", **asked)

    assert refused.value.param == "response_format"


def test_a_form_and_no_end_contradict_each_other(server: RunningServer) -> None:
    response = server.chat("x", response_format=by_schema(), ignore_eos=True)

    assert (response.status_code, response.json()["error"]["param"]) == (400, "ignore_eos")


def test_an_engine_without_grammars_says_so(server: RunningServer) -> None:
    server.service.backend.capabilities = frozenset({"logprobs"})

    response = server.chat("x", response_format=by_schema())

    assert (response.status_code, response.json()["error"]["param"]) == (400, "response_format")
