"""`cached_tokens` and the counter: who hears how much of a prompt was not read, and who shares with whom."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.test_access import rewrite, status

LONG = "of the sea and of ships " * 4
ALICE, BOB, CAROL = "sk-alice-0001", "sk-bob-000002", "sk-carol-0003"


def cached(usage: dict[str, Any]) -> tuple[int, int]:
    """What was cached of how many tokens."""
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def complete(server: RunningServer, **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": LONG, "max_tokens": 2} | fields
    usage: dict[str, Any] = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()["usage"]
    return usage


def ask(server: RunningServer, key: str) -> int:
    """How much of a prompt was there for `key`."""
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(LONG), headers=headers, timeout=60)
    return cached(answer.json()["usage"])[0]


def test_a_chat_tells_how_much_of_its_prompt_was_there(server: RunningServer) -> None:
    answers = [server.chat(content).json() for content in (LONG, LONG, LONG + "and of winds")]

    first, second, third = (cached(answer["usage"]) for answer in answers)
    length = first[1]
    assert length > 64
    assert (first[0], second) == (0, (length, length))
    assert third == (length // 64 * 64, third[1])
    assert answers[0]["choices"][0]["message"] == answers[1]["choices"][0]["message"]
    assert server.metric("prompt_tokens_cached_total") == length + third[0]
    assert server.metric("prompt_tokens_total") == 2 * length + third[1]


def test_a_stream_tells_it_in_its_last_chunk(server: RunningServer) -> None:
    server.chat(LONG)

    body = chat_body(LONG, stream=True, stream_options={"include_usage": True})
    lines = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).text.splitlines()

    [usage] = [found for line in lines if line.startswith("data: {") if (found := json.loads(line[6:])["usage"])]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]


def test_several_answers_to_a_new_prompt_share_it_but_it_was_read(server: RunningServer) -> None:
    assert cached(server.chat(LONG, n=3, temperature=1.0).json()["usage"])[0] == 0

    length = len(server.llm.tokenizer.encode(LONG))
    assert server.metric("prompt_tokens_cached_total") > 2 * length


def test_prompts_of_one_completion_count_each_by_itself(server: RunningServer) -> None:
    length = complete(server)["prompt_tokens"]

    usage = complete(server, prompt=[LONG, "new" + LONG, LONG], n=2)

    assert usage["prompt_tokens_details"]["cached_tokens"] == 2 * length


def test_an_echo_with_log_probabilities_is_read_again(server: RunningServer) -> None:
    first = complete(server, echo=True, logprobs=1)
    again = complete(server, echo=True, logprobs=1)

    assert cached(first) == cached(again)
    assert cached(again)[0] == 0


def test_a_response_tells_it_too(server: RunningServer) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

    usages = [
        client.responses.create(model="tiny", input=LONG, max_output_tokens=16, store=False).usage for _ in range(2)
    ]

    assert usages[0] is not None
    assert usages[1] is not None
    assert usages[0].input_tokens_details.cached_tokens == 0
    assert usages[1].input_tokens_details.cached_tokens == usages[1].input_tokens > 64


def test_keys_do_not_share_what_they_have_sent(start: Callable[..., RunningServer]) -> None:
    server = start(api_keys=(f"alice:{ALICE}", f"bob:{BOB}"))

    found = [ask(server, key) for key in (ALICE, BOB, ALICE, BOB)]

    assert found[:2] == [0, 0]
    assert found[2] == found[3] > 64


def test_a_key_without_a_name_keeps_its_own_when_the_list_is_edited(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ALICE}\n{BOB}\n")
    server = start(api_keys_file=file, api_keys=(CAROL,))
    before = [ask(server, key) for key in (ALICE, BOB, CAROL)]

    rewrite(file, f"{BOB}\n")
    eventually(lambda: status(server, ALICE) == 401, "the shorter list")

    assert before == [0, 0, 0]
    assert ask(server, BOB) > 64
    rewrite(file, f"sk-dora-00004\n{ALICE}\n")
    eventually(lambda: status(server, ALICE) == 200, "the other list")
    assert ask(server, "sk-dora-00004") == 0
    assert ask(server, ALICE) > 64


def test_it_can_be_switched_off(start: Callable[..., RunningServer]) -> None:
    server = start(prefix_cache_tokens=0)

    found = [cached(server.chat(LONG).json()["usage"])[0] for _ in range(2)]

    assert found == [0, 0]
    assert server.metric("prompt_tokens_cached_total") == 0
