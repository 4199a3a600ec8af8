"""Tools through other people's clients: called by their schema under a proxy, and their results answered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy_model.llm.frozen_llm import load_llm
from proxy_model.paths import proxies_root
from tests.front_door.clients.installed import SCRIPTS, node_modules, programs_of, run, told
from tests.front_door.conftest import LLM
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess, start_server

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1200)]

PROMPT = "Pick one."


@pytest.fixture(scope="module")
def server(llm_folder_with_tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its default proxy rejects what the LLM likes best, at every token where the grammar leaves a choice."""
    home, folder = tmp_path_factory.mktemp("home"), str(llm_folder_with_tools)
    llm = load_llm(folder, dtype="float32", device="cpu")
    RankPublisher(proxies_root(home), tmp_path_factory.mktemp("aside"), llm).publish()
    server = start_server(home, "--model", folder, "--dtype", "float32", "--device", "cpu", "--max-context", "2048")
    yield server
    server.kill()


def assert_picked(heard: dict[str, Any]) -> None:
    """One call by the schema, the same in a stream; and an answer to its result."""
    [[name, arguments]] = heard["whole"]
    assert name == "Pick"
    assert arguments in ({"n": 3}, {"n": 7})
    assert heard["streamed"] == heard["whole"]
    assert (heard["finish_reason"], len(heard["answer"])) == ("tool_calls", 12)


def test_langchain_openai(server: ServerProcess) -> None:
    python = programs_of("langchain-openai") / "python"

    heard = told(run(python, SCRIPTS / "ask_langchain_tools.py", f"{server.url}/v1", LLM, PROMPT))

    assert_picked(heard)


def test_litellm(server: ServerProcess) -> None:
    python = programs_of("litellm") / "python"
    own_prices = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would fetch a list of prices

    heard = told(run(python, SCRIPTS / "ask_litellm_tools.py", f"{server.url}/v1", LLM, PROMPT, **own_prices))

    assert_picked(heard)


def test_openai_node(server: ServerProcess) -> None:
    heard = told(run("node", SCRIPTS / "ask_node_tools.mjs", f"{server.url}/v1", LLM, PROMPT, node_modules()))

    assert_picked(heard)
