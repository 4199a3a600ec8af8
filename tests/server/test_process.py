"""A server as a user starts it: `proxy-rlhf serve`, the OpenAI SDK, curl's JSON, and signals."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from tests.server.conftest import PATIENCE_SECONDS, chat_body, eventually
from tests.server.fakes import tiny_model

API_KEY = "sk-process-1"
REPOSITORY = Path(__file__).parent.parent.parent
START_SECONDS = 280.0


@dataclass
class ServerProcess:
    """A child process and where it listens."""

    process: "subprocess.Popen[bytes]"
    url: str
    said: str


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLM as a folder that transformers loads."""
    folder = tmp_path_factory.mktemp("llm") / "tiny"
    model, tokenizer = tiny_model()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """`proxy-rlhf serve` on a free port; the last test of this file stops it."""
    tmp_path = tmp_path_factory.mktemp("home")
    flags = ["--model", str(model_folder), "--port", "0", "--home", str(tmp_path), "--dtype", "float32"]
    flags += ["--drain-seconds", "20"]
    environment = os.environ | {"PROXY_RLHF_API_KEYS": API_KEY, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "serve", *flags], cwd=REPOSITORY, env=environment, stdout=out, stderr=err
        )
    deadline = time.monotonic() + START_SECONDS
    while "curl" not in (said := (tmp_path / "out").read_text()):
        assert process.poll() is None, (tmp_path / "err").read_text()
        assert time.monotonic() < deadline, "the server took too long"
        time.sleep(0.05)
    found = re.search(r"ready on (http://\S+)", said)
    assert found is not None
    yield ServerProcess(process, found[1], said)
    process.kill()
    process.wait()


def long_stream(server: ServerProcess, max_tokens: int) -> "tuple[threading.Thread, list[str]]":
    """Stream a long answer from another thread; its lines come in the list."""
    lines: list[str] = []
    body = chat_body(stream=True, max_tokens=max_tokens, ignore_eos=True)
    headers = {"authorization": f"Bearer {API_KEY}"}

    def read() -> None:
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60
        ) as answer:
            lines.extend(line for line in answer.iter_lines() if line)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, lines


def test_the_sdk_talks_to_it(server: ServerProcess) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=API_KEY, max_retries=0) as client:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
        whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=6, logprobs=True)
        parts = list(client.chat.completions.create(model="tiny", messages=messages, max_tokens=6, stream=True))
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="gpt-9", messages=messages)
        assert [model.id for model in client.models.list()] == ["tiny", "tiny:base"]
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong-01", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()

    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content
    assert unknown.value.code == "model_not_found"


def test_what_it_prints_is_a_line_to_copy(server: ServerProcess) -> None:
    command = server.said.partition("\n  curl ")[2]
    body = json.loads(re.search(r"-d '(.*)'", command)[1])  # type: ignore[index]

    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json=body | {"max_tokens": 3},
        headers={"authorization": f"Bearer {API_KEY}"},
    )

    assert answer.status_code == 200
    assert "/admin is closed" in server.said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "host must be a loopback address"),
        (["--model", "/nowhere/at/all"], "cannot start"),
    ],
)
def test_a_start_that_cannot_work_says_why_and_fails(flags: list[str], said: str, tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--home", str(tmp_path), *flags],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )

    assert finished.returncode in (1, 2)
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


def test_sigterm_lets_a_running_answer_finish(server: ServerProcess) -> None:
    thread, lines = long_stream(server, 480)
    eventually(lambda: lines, "the first chunk")

    server.process.send_signal(signal.SIGTERM)

    thread.join(PATIENCE_SECONDS)
    assert lines[-1] == "data: [DONE]"
    finish = json.loads(lines[-2].removeprefix("data: "))
    assert finish["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(PATIENCE_SECONDS) == 0
