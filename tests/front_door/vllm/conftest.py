"""The server over a real vLLM, on the tiny LLM in float32."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.front_door.server_process import ServerProcess, start_server

StartVllm = Callable[..., ServerProcess]

UNBOUND = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""Two ranks on one NUMA node; vLLM would have one for each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder, where there is a vLLM."""
    is_there = importlib.util.find_spec("vllm") is not None
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            if not is_there:
                item.add_marker(pytest.mark.skip("needs vLLM: make test-vllm"))


@pytest.fixture(scope="module")
def start_vllm(llm_folder: Path, home: Path) -> Iterator[StartVllm]:
    """Start servers in this module's home, with more of vLLM's arguments; they are killed at its end."""
    running: list[ServerProcess] = []

    def start_one(*flags: str, **arguments: Any) -> ServerProcess:
        options = json.dumps({"enforce_eager": True} | arguments)
        model = ("--model", str(llm_folder), "--dtype", "float32", "--engine", "vllm", "--vllm-args", options)
        running.append(start_server(home, *model, "--reload-seconds", "0.05", *flags, environment=UNBOUND))
        return running[-1]

    yield start_one
    for server in running:
        server.kill()
