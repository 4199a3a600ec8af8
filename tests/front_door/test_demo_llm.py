"""The demo LLM behind a server that is started without naming one, as `make serve` does."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from proxy_model.llm.embedded import DEFAULT_LLM
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.llm.source import resolve_llm
from proxy_model.paths import models_root, proxies_root
from tests.front_door.crowd import PROMPT
from tests.front_door.rank_proxies import RankPublisher, expected_texts
from tests.front_door.server_process import ServerProcess, start_server
from tests.front_door.test_curl import SHOWN, curl_lines, run
from tests.front_door.trainer_process import start_trainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
LENGTH = 24
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    """Fetched and converted at the first use, from then on out of this user's cache."""
    return load_llm(resolve_llm(DEFAULT_LLM).folder_or_id)


@pytest.fixture(scope="module")
def server(llm: FrozenLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A new home that shares only the converted LLM with this user's; `second` takes the second candidate always."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_root())
    publisher = RankPublisher(proxies_root(home), tmp_path_factory.mktemp("aside"), llm, name="second")
    publisher.publish()
    server = start_server(home)
    yield server
    server.kill()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def texts(llm: FrozenLLM) -> Sequence[str]:
    return expected_texts(llm, PROMPT, LENGTH)


def test_the_llm_alone_answers_in_english(client: openai.OpenAI) -> None:
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]

    answer = client.chat.completions.create(model=f"{DEFAULT_LLM}:base", messages=question, max_tokens=24)

    assert "Paris" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize(("name", "rank"), [("base", 0), ("second", 1)])
def test_a_stream_is_what_the_decode_loop_says(
    client: openai.OpenAI, texts: Sequence[str], name: str, rank: int
) -> None:
    fields: dict[str, Any] = {"messages": MESSAGES, "max_tokens": LENGTH, "extra_body": {"ignore_eos": True}}

    stream = client.chat.completions.create(model=f"{DEFAULT_LLM}:{name}", stream=True, **fields)

    assert "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices) == texts[rank]


@pytest.mark.parametrize(
    "command", [line for line in curl_lines() if re.search(rf"{DEFAULT_LLM}:(base|helpful|harmless)\b", line)]
)
def test_every_curl_line_that_names_a_demo_proxy_is_answered_by_it(command: str, server: ServerProcess) -> None:
    answer = json.loads(run(command, server))

    name = answer["model"].partition(":")[2]
    assert answer["choices"][0]["message"]["content"]
    assert answer["system_fingerprint"].endswith(f":{name}" if name == "base" else f":{name}@1")


@pytest.mark.parametrize("name", ["helpful", "harmless"])
def test_the_demo_proxies_are_there_and_steer(client: openai.OpenAI, texts: Sequence[str], name: str) -> None:
    answer = client.chat.completions.create(model=f"{DEFAULT_LLM}:{name}", messages=MESSAGES, max_tokens=LENGTH)

    assert (answer.model_extra or {})["proxy"]["rejections"] > 0
    assert answer.choices[0].message.content != texts[0]


class City(BaseModel):
    name: str
    country: Literal["France", "Italy", "Spain"]
    inhabitants: int
    is_capital: bool


@pytest.mark.parametrize("model", ["base", "helpful", "second"])
def test_the_sdk_parses_a_model_out_of_what_the_demo_llm_says(client: openai.OpenAI, model: str) -> None:
    asked = "Tell me about Paris, the capital of France, in JSON with name, country, inhabitants and is_capital."

    answer = client.chat.completions.parse(
        model=f"{DEFAULT_LLM}:{model}",
        messages=[{"role": "user", "content": asked}],
        response_format=City,
        max_tokens=120,
    )

    city = answer.choices[0].message.parsed
    assert city is not None
    assert json.loads(answer.choices[0].message.content or "") == city.model_dump()
    if model == "base":
        assert (city.name, city.country) == ("Paris", "France")


def test_the_documented_way_from_prompts_to_a_served_proxy_is_one(server: ServerProcess) -> None:
    program = (ROOT / "docs" / "fine_tune.py").read_text()
    assert SHOWN in program

    trainer = start_trainer(server.home)
    try:
        finished = subprocess.run(
            [sys.executable, "-c", program.replace(SHOWN, server.url)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    finally:
        trainer.kill()

    assert finished.returncode == 0, finished.stdout + finished.stderr
    events, name, answer = finished.stdout.partition(f"{DEFAULT_LLM}:my-helper\n")
    assert "succeeded" in events
    assert name
    assert answer.strip()
