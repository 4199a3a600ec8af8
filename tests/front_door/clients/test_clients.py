"""What people talk to OpenAI with, against the server as a user starts it: all hear the decode loop's answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy_model.llm.frozen_llm import FrozenLLM
from tests.front_door.clients.installed import SCRIPTS, node_modules, programs_of, run, told
from tests.front_door.conftest import LLM
from tests.front_door.rank_proxies import expected_texts
from tests.front_door.server_process import ServerProcess

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1200)]

PROMPT = "How do I stay calm?"
LENGTH = 12


@pytest.fixture(scope="module")
def text(llm: FrozenLLM) -> str:
    """The right answer of the default proxy, version 1."""
    texts: Sequence[str] = expected_texts(llm, PROMPT, LENGTH)
    assert texts[0] != texts[1]
    return texts[1]


def is_mood(found: dict[str, Any]) -> bool:
    """Whether it is by the schema that the scripts ask for."""
    return found.keys() == {"calm", "colour"} and found["calm"] in (True, False) and found["colour"] in ("red", "green")


def test_langchain_openai(server: ServerProcess, text: str) -> None:
    python = programs_of("langchain-openai") / "python"

    heard = told(run(python, SCRIPTS / "ask_langchain.py", f"{server.url}/v1", LLM, PROMPT))

    assert is_mood(heard.pop("mood"))
    assert heard == {
        "whole": text,
        "tokens": LENGTH,
        "finish_reason": "length",
        "streamed": text,
        "batched": [text] * 3,
        "async": text,
        "refused": "model_not_found",
    }


def test_litellm(server: ServerProcess, text: str) -> None:
    python = programs_of("litellm") / "python"
    own_prices = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would fetch a list of prices

    heard = told(run(python, SCRIPTS / "ask_litellm.py", f"{server.url}/v1", LLM, PROMPT, **own_prices))

    assert is_mood(heard.pop("mood"))
    assert heard == {
        "whole": text,
        "tokens": LENGTH,
        "finish_reason": "length",
        "streamed": text,
        "async": text,
        "text_tokens": LENGTH,
        "refused": 404,
    }


def test_instructor(server: ServerProcess) -> None:
    python = programs_of("instructor") / "python"

    heard = told(run(python, SCRIPTS / "ask_instructor.py", f"{server.url}/v1", LLM, PROMPT))

    assert heard.keys() == {"whole", "async"}
    assert all(is_mood(mood) for mood in heard.values())


def test_the_llm_command_line(server: ServerProcess, text: str, tmp_path: Path) -> None:
    model = f"- model_id: proxied\n  model_name: {LLM}\n  api_base: {server.url}/v1\n  api_key_name: none\n"
    (tmp_path / "extra-openai-models.yaml").write_text(model)
    (tmp_path / "keys.json").write_text(json.dumps({"none": "none"}))
    llm = programs_of("llm") / "llm"
    question: list[str | Path] = [llm, "prompt", "-m", "proxied", "-o", "max_tokens", str(LENGTH), PROMPT]

    streamed = run(*question, LLM_USER_PATH=str(tmp_path))
    whole = run(*question, "--no-stream", LLM_USER_PATH=str(tmp_path))

    assert (streamed, whole) == (f"{text}\n", f"{text}\n")


def test_openai_node(server: ServerProcess, text: str) -> None:
    folder = node_modules()

    heard = told(run("node", SCRIPTS / "ask_node.mjs", f"{server.url}/v1", LLM, PROMPT, folder))

    assert [heard[name] for name in ("whole", "streamed", "events", "final")] == [text] * 4
    assert heard["response"] == ["incomplete", text]
    assert is_mood(heard["mood"])
    assert heard["proxy"] == {"id": "helpful", "version": 1, "accepted": 12, "rejections": 12, "forced": 0}
    assert (heard["decisions"], heard["tokens"], heard["request_id"]) == (LENGTH, LENGTH, "node-1")
    assert f"{LLM}:helpful@1" in heard["models"]
    assert heard["refused"] == {
        "class": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
        "type": "invalid_request_error",
    }


def test_a_client_that_is_generated_from_the_openapi_document(server: ServerProcess, text: str, tmp_path: Path) -> None:
    programs = programs_of("openapi-python-client")
    (tmp_path / "config.yml").write_text("post_hooks: []\n")  # no formatting
    files: list[str | Path] = ["--config", tmp_path / "config.yml", "--output-path", tmp_path / "generated"]
    run(
        programs / "openapi-python-client",
        *("generate", "--url", f"{server.url}/openapi.json", "--meta", "none", "--fail-on-warning"),
        *files,
    )

    asked = run(programs / "python", SCRIPTS / "ask_generated.py", server.url, LLM, PROMPT, PYTHONPATH=str(tmp_path))

    heard = told(asked)
    assert (heard["whole"], heard["tokens"], heard["rejections"]) == (text, LENGTH, LENGTH)
    assert heard["refused"] == "model_not_found"
    assert f"{LLM}:helpful@1" in heard["models"]
