"""A server over vLLM in trouble: clients that vanish, a full queue, versions that do not fit, a process that dies."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from proxy_model.decision.config import SkamConfig
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import proxies_root
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.conftest import steering_policy
from tests.front_door.conftest import LLM
from tests.front_door.rank_proxies import RankPublisher, expected_texts
from tests.front_door.server_process import ServerProcess, eventually
from tests.front_door.vllm.conftest import StartVllm

PROMPT = "How do I stay calm?"
LONG = {
    "model": f"{LLM}:base",
    "messages": [{"role": "user", "content": PROMPT}],
    "max_tokens": 3000,
    "ignore_eos": True,
    "stream": True,
}


@pytest.fixture(scope="module")
def server(start_vllm: StartVllm, publisher: RankPublisher) -> ServerProcess:
    """Two slots, one place in the queue."""
    publisher.publish()
    return start_vllm("--max-running", "2", "--max-waiting", "1", "--max-context", "4000")


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def running(server: ServerProcess) -> float:
    return server.metric("num_requests_running") + server.metric("num_requests_waiting")


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    """A short answer of the default proxy."""
    settings: dict[str, Any] = {"model": LLM, "max_tokens": 8, "extra_body": {"ignore_eos": True}} | fields
    return client.chat.completions.create(messages=[{"role": "user", "content": PROMPT}], **settings)


def test_a_client_that_vanishes_frees_its_slot(server: ServerProcess) -> None:
    for _ in range(4):
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=LONG, timeout=60) as response:
            for number, _ in enumerate(response.iter_lines()):
                if number == 6:
                    break

    eventually(lambda: running(server) == 0, "free slots", 20)
    assert server.metric("proxy_requests_total", status="abort") == 4
    assert server.metric("kv_cache_usage_ratio") == 0


def test_a_full_queue_is_a_429_and_clears(server: ServerProcess, client: openai.OpenAI) -> None:
    streams = [
        httpx.Client(timeout=60).stream("POST", f"{server.url}/v1/chat/completions", json=LONG) for _ in range(2)
    ]
    for stream in streams:
        stream.__enter__()
    waiting = threading.Thread(target=lambda: ask(client))
    waiting.start()
    eventually(lambda: running(server) >= 2, "two answers")

    refusals: list[openai.RateLimitError] = []

    def is_refused() -> bool:
        try:
            ask(client, max_tokens=1)
        except openai.RateLimitError as error:
            refusals.append(error)
        return bool(refusals)

    eventually(is_refused, "a refusal", 30)
    assert int(refusals[0].response.headers["retry-after"]) >= 1
    for stream in streams:
        stream.__exit__(None, None, None)
    waiting.join(60)
    eventually(lambda: running(server) == 0, "free slots", 20)
    assert ask(client).choices[0].finish_reason == "length"


def test_stop_strings_end_an_answer_where_the_engine_would(client: openai.OpenAI, llm: FrozenLLM) -> None:
    text = expected_texts(llm, PROMPT, 24)[1]
    stop = text[10:12]

    answer = ask(client, max_tokens=24, stop=[stop])

    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens <= text.index(stop) + 2


def test_a_form_is_kept(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}

    bad = {"type": "json_schema", "json_schema": {"name": "place", "schema": {"type": "strange"}}}

    answer = ask(client, max_tokens=60, response_format=form, extra_body={})
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, response_format=bad)

    assert json.loads(answer.choices[0].message.content)["city"] in ("Rome", "Oslo")
    assert refused.value.param == "response_format"


def test_a_prompt_s_log_probabilities_are_the_llm_s(server: ServerProcess, llm: FrozenLLM) -> None:
    body = {"model": f"{LLM}:base", "prompt": "stay calm", "max_tokens": 0, "echo": True, "logprobs": 2}

    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()

    ids = llm.tokenizer.encode_prompt("stay calm")
    (expected,) = llm.token_logprobs([ids], [1])
    told = answer["choices"][0]["logprobs"]["token_logprobs"]
    assert told[0] is None
    assert told[1:] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_version_comes_and_goes_while_an_answer_keeps_its_own(
    server: ServerProcess, client: openai.OpenAI, publisher: RankPublisher, llm: FrozenLLM
) -> None:
    stream = client.chat.completions.create(
        model=LLM,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=400,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    chunks = [next(iter(stream)) for _ in range(3)]
    version = publisher.publish()
    eventually(lambda: (ask(client).system_fingerprint or "").endswith(f"@{version}"), "the new version", 30)
    chunks += list(stream)

    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == expected_texts(llm, PROMPT, 400)[version - 1]
    assert ask(client).choices[0].message.content == expected_texts(llm, PROMPT, 8)[version]


def test_features_that_need_another_pass_are_refused(server: ServerProcess, home: Path, llm: FrozenLLM) -> None:
    candidate = Checkpoint(steering_policy(llm, "candidate"), SkamConfig(), dict(llm.fingerprint))
    ProxyRegistry(proxies_root(home)).publish("walker", candidate)

    def refusals() -> list[dict[str, Any]]:
        found = [line for line in server.log() if line.get("proxy") == "walker"]
        return [line for line in found if line["message"] == "a proxy was refused"]

    eventually(refusals, "a refusal", 30)
    assert refusals()[0]["reason"] == "unsupported"
    assert "'prefix' over vLLM" in refusals()[0]["detail"]


def test_when_a_worker_dies_who_waits_is_told_and_the_server_ends(server: ServerProcess) -> None:
    events: list[str] = []
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=LONG, timeout=60) as response:
        for line in response.iter_lines():
            events += [line.removeprefix("data: ")] if line else []
            if line and len(events) == 5:
                children = psutil.Process(server.process.pid).children(recursive=True)
                next(each for each in _alive(children) if "Worker" in str(each.cmdline())).send_signal(signal.SIGKILL)

    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["type"] == "server_error"
    assert server.process.wait(60) == 1
    eventually(lambda: not _alive(children), "the end of vLLM's processes", 30)


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
