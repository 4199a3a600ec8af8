"""What vLLM keeps of prompts is found again by who has sent them, and by nobody else."""

from pathlib import Path

import httpx
import pytest

from tests.front_door.conftest import LLM
from tests.front_door.server_process import ServerProcess
from tests.front_door.vllm.conftest import StartVllm

ALICE, BOB, CAROL = "sk-alice-0001", "sk-bob-000002", "sk-carol-0003"
BLOCK = 128
"""Tokens, vLLM's on a CPU; a prompt's last token is always read."""


@pytest.fixture(scope="module")
def server(start_vllm: StartVllm, tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    """Two keys of one name and one of another."""
    keys: Path = tmp_path_factory.mktemp("keys") / "api_keys"
    keys.write_text(f"team:{ALICE}\nteam:{BOB}\ncarol:{CAROL}\n")
    return start_vllm("--api-keys-file", str(keys), "--max-context", "512", "--max-running", "2")


def cached(server: ServerProcess, key: str, prompt: str) -> int:
    """How much of `prompt` was not read for `key`."""
    body = {"model": f"{LLM}:base", "prompt": prompt, "max_tokens": 2, "ignore_eos": True}
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=60)
    tokens: int = answer.raise_for_status().json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


def test_a_prompt_is_found_again_under_its_name_alone(server: ServerProcess) -> None:
    prompt = "of the sea and of ships " * 12

    found = [cached(server, key, prompt) for key in (ALICE, CAROL, ALICE, CAROL, BOB)]

    assert found == [0, 0, 2 * BLOCK, 2 * BLOCK, 2 * BLOCK]
