"""POST /tokenize, POST /detokenize and GET /version."""

from importlib.metadata import version
from typing import Any

import httpx
import pytest
from tokenizers.processors import TemplateProcessing

from proxy_model.llm.tokenizer import ChatTokenizer
from server.routes.tokens import token_ids
from server.schemas.tokens import TokenizeRequest
from tests.server.conftest import RunningServer
from tests.server.fakes import CONTEXT
from tests.tiny_tokenizer import byte_tokenizer

USER = {"role": "user", "content": "a"}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def post(server: RunningServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body)


def test_a_text_becomes_the_token_ids_that_a_completion_reads(server: RunningServer) -> None:
    found = post(server, "/tokenize", model="tiny", prompt="hi<|end|>").json()

    end = server.llm.tokenizer.document_start()
    assert found == {
        "count": 3,
        "max_model_len": CONTEXT,
        "tokens": [ord("h") - 0x21, ord("i") - 0x21, *end],
        "token_strs": None,
    }
    named = post(server, "/tokenize", prompt="hi<|end|>", return_token_strs=True).json()
    assert named["token_strs"] == ["h", "i", "<|end|>"]


def test_a_conversation_becomes_what_its_answer_continues(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "hello"}]

    opened = post(server, "/tokenize", messages=messages).json()
    closed = post(server, "/tokenize", messages=messages, add_generation_prompt=False).json()

    assert opened["count"] == server.chat().json()["usage"]["prompt_tokens"]
    assert post(server, "/detokenize", tokens=opened["tokens"]).json() == {"prompt": "u:hello\na:"}
    assert closed["tokens"] == opened["tokens"][:-2]


def test_a_conversation_that_goes_on_is_left_open(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Sure,"}]
    fields = {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}

    tokens = post(server, "/tokenize", **fields).json()["tokens"]

    assert post(server, "/detokenize", tokens=tokens).json() == {"prompt": "u:hi\na:Sure,"}


@pytest.mark.parametrize(
    ("asked", "of_text", "of_chat"), [(None, True, False), (True, True, True), (False, False, False)]
)
def test_a_text_begins_as_texts_do_and_a_conversation_as_its_template_says(
    asked: bool | None, of_text: bool, of_chat: bool
) -> None:
    tokenizer = byte_tokenizer()
    start = tokenizer.convert_tokens_to_ids("<|end|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", start)]
    )
    fields: list[dict[str, Any]] = [{"prompt": "a"}, {"messages": [USER]}]

    bodies = [TokenizeRequest.model_validate(each | {"add_special_tokens": asked}) for each in fields]
    found = [token_ids(ChatTokenizer(tokenizer), body)[0] == start for body in bodies]

    assert found == [of_text, of_chat]


@pytest.mark.parametrize("text", ["", "plain", "h\u00e9llo \U0001f600\n", "a<|end|>b"])
def test_there_and_back(server: RunningServer, text: str) -> None:
    tokens = post(server, "/tokenize", prompt=text).json()["tokens"]

    assert post(server, "/detokenize", tokens=tokens).json() == {"prompt": text}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [USER]}, 400, "prompt"),
        ("/tokenize", {"prompt": 5}, 400, "prompt"),
        ("/tokenize", {"messages": [USER], "continue_final_message": True}, 400, "continue_final_message"),
        ("/tokenize", {"messages": [USER], "tools": [CLOCK]}, 400, "tools"),
        ("/tokenize", {"prompt": "a", "colour": 1}, 400, "colour"),
        ("/tokenize", {"prompt": "a", "model": "gpt-9"}, 404, "model"),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [100_000]}, 400, "tokens"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": [], "model": "gpt-9"}, 404, "model"),
    ],
)
def test_a_wrong_field_is_named(
    server: RunningServer, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    response = post(server, path, **body)

    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


def test_the_version_is_the_packages(server: RunningServer) -> None:
    assert httpx.get(f"{server.url}/version").json() == {"version": version("proxy-rlhf")}
