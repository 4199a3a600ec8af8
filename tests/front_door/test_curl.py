"""Plain curl and the SDK's snippets, exactly as the documents and the server itself show them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import PATIENCE_SECONDS, ServerProcess

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = "\n".join(
    path.read_text() for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
)
SHOWN = "http://127.0.0.1:8000"
"""Where the documents' server listens."""

WHOLE = f"""curl {SHOWN}/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{"model": "{LLM}", "messages": [{{"role": "user", "content": "How do I stay calm?"}}], "max_tokens": 12}}'"""
STREAMED = WHOLE.replace("curl ", "curl -N ").replace('"model"', '"stream": true, "model"')


@pytest.fixture(scope="module")
def server(start: StartServer, publisher: RankPublisher) -> ServerProcess:
    """With the proxies that the documents ask: the shipped ones, and the guide's `mine`."""
    for name in ("helpful", "harmless", "mine"):
        RankPublisher(publisher.root, publisher.aside, publisher.llm, name=name).publish()
    return start("--max-context", "1024")


def blocks(language: str, containing: str) -> list[str]:
    """The documents' code blocks in `language` that contain a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENTS, re.DOTALL | re.MULTILINE)
    return [block for block in found if containing in block]


def curl_lines() -> list[str]:
    """The documents' curl commands to /v1, continuation lines joined."""
    lines = "\n".join(blocks("(?:sh|bash|console)", "curl ")).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?curl .*/v1/", line)]


def run(command: str, server: ServerProcess) -> str:
    """What a shell prints for `command`, sent to this server."""
    shell = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace(SHOWN, server.url).replace("localhost:8000", server.url)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert shell.returncode == 0, shell.stderr
    return shell.stdout


def chunks(printed: str) -> list[dict[str, Any]]:
    """The events of a stream, which must end as OpenAI's do."""
    events = [line.removeprefix("data: ") for line in printed.splitlines() if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def test_curl_prints_an_answer(server: ServerProcess) -> None:
    answer = json.loads(run(WHOLE, server))

    assert answer["object"] == "chat.completion"
    assert answer["model"] == LLM
    assert len(answer["choices"][0]["message"]["content"]) == 12
    assert answer["proxy"]["version"] == 1


def test_curl_prints_the_same_answer_in_events(server: ServerProcess) -> None:
    parts = chunks(run(STREAMED, server))

    text = "".join(choice["delta"].get("content") or "" for part in parts for choice in part["choices"])
    assert text == json.loads(run(WHOLE, server))["choices"][0]["message"]["content"]
    assert {part["system_fingerprint"].rpartition(":")[2] for part in parts} == {"helpful@1"}


def test_the_line_that_the_server_prints_works(server: ServerProcess) -> None:
    shown = re.search(r"^ +(curl .*?-d '.*?')$", server.said(), re.DOTALL | re.MULTILINE)
    assert shown is not None, server.said()

    answer = json.loads(run(shown[1], server))

    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("command", curl_lines())
def test_every_curl_line_of_the_documents_works(command: str, server: ServerProcess) -> None:
    printed = run(command, server)

    answers = chunks(printed) if printed.startswith("data:") else [json.loads(printed)]
    assert answers
    assert not [answer for answer in answers if "error" in answer]


@pytest.mark.parametrize("snippet", blocks("python", "openai"))
def test_every_sdk_snippet_of_the_documents_works(snippet: str, server: ServerProcess, tmp_path: Path) -> None:
    program = tmp_path / "snippet.py"
    program.write_text(snippet.replace(SHOWN, server.url).replace("http://localhost:8000", server.url))

    shell = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )

    assert shell.returncode == 0, shell.stderr
    assert shell.stdout.strip()
