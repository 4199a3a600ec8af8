"""`kill -9` of publishers at work and of the server: the next start cleans up and serves what was good."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import openai
from openai.types.chat import ChatCompletionMessageParam

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess, eventually

REPOSITORY = Path(__file__).parents[2]
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How do I stay calm?"}]


def kill_two_publishers(root: Path, llm_folder: Path) -> None:
    """`kill -9` in the middle of a version of `harmless`, and between a version of `helpful` and its alias."""
    command = [sys.executable, "-m", "tests.front_door.stuck_publishers", str(root), str(llm_folder)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"stuck\n"] * 2
        finally:
            process.kill()


def leftovers(root: Path) -> list[str]:
    """What no publisher in order leaves, by the proxy's name."""
    return sorted(path.parent.name for path in root.glob("*/.staging-*"))


def answering(server: ServerProcess, name: str) -> str:
    """The exact proxy that answers under a name, by the SDK."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=f"{LLM}:{name}", messages=MESSAGES, max_tokens=4)
    return str(answer.system_fingerprint).rpartition(":")[2]


def test_a_restart_cleans_up_and_serves_the_old_versions(
    start: StartServer, publisher: RankPublisher, llm_folder: Path
) -> None:
    harmless = replace(publisher, name="harmless")
    publisher.publish()
    harmless.publish()
    first = start("--reload-seconds", "0.05")

    kill_two_publishers(publisher.root, llm_folder)
    assert leftovers(publisher.root) == ["harmless", "helpful"]
    assert [answering(first, name) for name in ("helpful", "harmless")] == ["helpful@1", "harmless@1"]
    first.kill()
    second = start("--reload-seconds", "0.05")

    assert leftovers(publisher.root) == []
    deleted = [line["path"] for line in second.log() if line["message"] == "an unfinished version was deleted"]
    assert sorted(Path(path).parent.name for path in deleted) == ["harmless", "helpful"]
    assert [answering(second, name) for name in ("helpful", "harmless")] == ["helpful@1", "harmless@1"]
    # Version 2 of `helpful` is there, though nothing names it; of `harmless` there is none.
    assert (publisher.publish(), harmless.publish()) == (3, 2)
    eventually(lambda: answering(second, "helpful") == "helpful@3", "helpful@3")
    eventually(lambda: answering(second, "harmless") == "harmless@2", "harmless@2")
