"""SIGTERM under load: not ready at once, nothing new, running and queued answers finish, exit code 0."""

import asyncio
import re
import signal

import openai
import pytest

from proxy_model.llm.frozen_llm import FrozenLLM
from tests.front_door.conftest import StartServer
from tests.front_door.crowd import PROMPT, Heard, hear, new_client
from tests.front_door.rank_proxies import RankPublisher, expected_texts
from tests.front_door.server_process import PATIENCE_SECONDS, ServerProcess

NUM_CLIENTS = 12
NUM_SLOTS = 8
LENGTH = 300


@pytest.fixture
def server(start: StartServer, publisher: RankPublisher) -> ServerProcess:
    """Fewer slots than clients, and much time to drain."""
    publisher.publish()
    return start("--max-running", str(NUM_SLOTS), "--drain-seconds", "200")


def num_waiting(server: ServerProcess) -> int:
    """Answers in the queue."""
    found = re.search(r"^num_requests_waiting(?:{[^}]*})? (\S+)$", server.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


async def listen_across_sigterm(server: ServerProcess) -> list[Heard]:
    """Send the signal once every slot is streaming; check what strangers are told, and hear all to their ends."""
    num_begun = asyncio.Semaphore(0)
    async with new_client(server.url) as client, asyncio.TaskGroup() as group:
        answers = [group.create_task(hear(client, LENGTH, num_begun.release)) for _ in range(NUM_CLIENTS)]
        for _ in range(NUM_SLOTS):  # a stream begins with its first token, so the others have not begun
            await num_begun.acquire()
        assert await asyncio.to_thread(num_waiting, server) == NUM_CLIENTS - NUM_SLOTS
        assert not any(answer.done() for answer in answers), "all was over before the signal could matter"
        server.process.send_signal(signal.SIGTERM)
        ready = await asyncio.to_thread(server.get, "/ready")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "not_ready")
        assert int(ready.headers["retry-after"]) >= 1
        with pytest.raises(openai.InternalServerError) as refused:
            await hear(client, 1)
        assert refused.value.status_code == 503
        assert (await asyncio.to_thread(server.get, "/health")).status_code == 200
    return [answer.result() for answer in answers]


def test_running_and_queued_answers_finish_and_the_exit_code_is_0(server: ServerProcess, llm: FrozenLLM) -> None:
    expected = expected_texts(llm, PROMPT, LENGTH)[1]

    heard = asyncio.run(listen_across_sigterm(server))

    assert [(answer.text, answer.finish_reasons) for answer in heard] == [(expected, ("length",))] * NUM_CLIENTS
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert not [line for line in server.log() if line["level"] in ("warning", "error", "critical")]
