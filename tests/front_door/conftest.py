"""Servers as users start them, over a tiny LLM that goes by the demo LLM's name, so that documented lines just run."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.paths import proxies_root
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess, start_server
from tests.server.fakes import tiny_model
from tests.store.postgres_process import running_postgres
from tests.tool_templates import HERMES

LLM = "smollm2-135m-instruct"
ENGINE_FLAGS = {
    "local": (),
    "vllm": ("--engine", "vllm", "--vllm-args", '{"enforce_eager": true}'),
}[os.environ.get("TEST_ENGINE", "local")]
"""The suite runs over either engine; `make test-vllm` sets the other one."""

VLLM_HEAD_DIM = 32
"""The smallest that vLLM's attention takes."""

StartServer = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with its tokenizer, as `save_pretrained` leaves them."""
    folder = tmp_path_factory.mktemp("llm") / LLM
    model, tokenizer = tiny_model(VLLM_HEAD_DIM)
    model.config.max_position_embeddings = 4096
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llm_folder_with_tools(llm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same LLM under a chat template that has tools."""
    folder = tmp_path_factory.mktemp("tools") / LLM
    shutil.copytree(llm_folder, folder)
    (folder / "chat_template.jinja").write_text(HERMES, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def llm(llm_folder: Path) -> FrozenLLM:
    """The same LLM in this process."""
    return load_llm(str(llm_folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PROXY_RLHF_HOME."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], scope="module")
def store_environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Says which store is used: the one in the home, or a new Postgres."""
    if request.param == "sqlite":
        yield {}
        return
    with running_postgres() as url:
        yield {"PROXY_RLHF_STORE_URL": url}


@pytest.fixture(scope="module")
def publisher(home: Path, llm: FrozenLLM, tmp_path_factory: pytest.TempPathFactory) -> RankPublisher:
    """Publishes `helpful`, the default proxy, for the servers of this module."""
    return RankPublisher(proxies_root(home), tmp_path_factory.mktemp("aside"), llm)


@pytest.fixture(scope="module")
def start(llm_folder: Path, home: Path) -> Iterator[StartServer]:
    """Start servers in this module's home; they are killed at its end."""
    running: list[ServerProcess] = []

    def start_one(*flags: str, **environment: str) -> ServerProcess:
        flags = ("--model", str(llm_folder), "--dtype", "float32", "--device", "cpu", *ENGINE_FLAGS, *flags)
        running.append(start_server(home, *flags, environment=environment))
        return running[-1]

    yield start_one
    for server in running:
        server.kill()


@pytest.fixture(scope="module")
def server(start: StartServer, publisher: RankPublisher) -> ServerProcess:
    """Without keys, and with version 1 of `helpful` and of `harmless`: one rejection per token each."""
    publisher.publish()
    RankPublisher(publisher.root, publisher.aside, publisher.llm, name="harmless").publish()
    return start("--max-context", "1024")
