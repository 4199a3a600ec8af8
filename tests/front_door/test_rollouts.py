"""A run whose prompts are answered by running servers is the run with an engine of its own."""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from proxy_model.errors import ServersFailed
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.native.library import load_kernels
from proxy_model.paths import proxies_root
from proxy_model.versions.registry import ProxyRegistry
from tests.architectures import random_model
from tests.front_door.conftest import StartServer
from tests.front_door.served_runs import LENT, PROXY, run_config, train_on, train_until_the_server_stops
from tests.front_door.server_process import ServerProcess, eventually
from tests.tiny_tokenizer import byte_tokenizer
from tests.trainer.tiny_llm import tiny_llm
from trainer.loop import TrainResult
from trainer.run_log import METRICS_FILE, read_rows
from trainer.served.config import ServersConfig

DTYPE = "float32" if load_kernels() is None else "bfloat16"
"""With compiled kernels no number depends on what is computed beside it, so that runs are equal to the bit."""

FLAGS = ("--dtype", DTYPE, "--max-context", "256", "--reload-seconds", "0.1", "--no-store")
KEY = "the-right-key-001"
_CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a shape that the compiled kernels take."""
    folder = tmp_path_factory.mktemp("llm") / "wide"
    for part in (random_model("llama_wide"), byte_tokenizer()):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run_llm(llm_folder: Path) -> FrozenLLM:
    """In this process."""
    return load_llm(str(llm_folder), dtype=DTYPE, device="cpu")


@pytest.fixture(scope="module")
def servers(start: StartServer) -> list[ServerProcess]:
    """Two replicas over one folder of proxies; the first one asks for a key."""
    return [start(*FLAGS, PROXY_RLHF_API_KEYS=KEY), start(*FLAGS)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer has the servers' key."""
    monkeypatch.setenv("PROXY_RLHF_ROLLOUT_KEY", KEY)


@pytest.fixture(scope="module")
def expected(run_llm: FrozenLLM, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The run with an engine of its own."""
    folder = tmp_path_factory.mktemp("own")
    return train_on(run_llm, run_config(folder / "run", folder / "proxies", []))


def assert_same_run(found: TrainResult, expected: TrainResult) -> None:
    """To the bit with kernels; in torch the rounding of other batches is learnt from, too."""
    tolerance = 0.0 if DTYPE == "bfloat16" else 1e-3
    for name, weights in expected.policy.state_dict().items():
        torch.testing.assert_close(found.policy.state_dict()[name], weights, rtol=0, atol=tolerance, msg=name)
    told = {name: value for name, value in found.metrics.items() if not name.startswith(("speed/", "rollout/"))}
    assert told == pytest.approx({name: expected.metrics[name] for name in told}, abs=tolerance)


def test_answered_by_servers_it_ends_with_the_same_weights_and_leaves_nothing_behind(
    servers: list[ServerProcess], home: Path, run_llm: FrozenLLM, expected: TrainResult, tmp_path: Path
) -> None:
    registry = ProxyRegistry(proxies_root(home))
    config = run_config(tmp_path / "run", registry.root, [server.url for server in servers])

    found = train_on(run_llm, config)

    assert_same_run(found, expected)
    assert found.metrics["rollout/differing_share"] == 0
    assert expected.metrics["proxy/rejections_per_token"] > 0.1
    answers = [server.metric("proxy_requests_total") for server in servers]
    assert sum(answers) == 3 * 16
    assert min(answers) > 0
    assert registry.names() == [PROXY]
    eventually(lambda: not any(LENT in each.get("/v1/models").text for each in servers), "the last version's end")


def test_a_run_that_is_killed_while_servers_answer_is_resumed_and_its_version_deleted(
    servers: list[ServerProcess],
    home: Path,
    llm_folder: Path,
    run_llm: FrozenLLM,
    expected: TrainResult,
    tmp_path: Path,
) -> None:
    registry, server = ProxyRegistry(proxies_root(home)), servers[0]
    config = run_config(tmp_path / "run", registry.root, [server.url])
    arguments = (llm_folder, DTYPE, config, server.process.pid)
    process = _CONTEXT.Process(target=train_until_the_server_stops, args=arguments, daemon=True)

    process.start()
    try:
        eventually((config.output / METRICS_FILE).exists, "the first iteration")
        eventually(lambda: registry.versions(LENT), "the second rollout")
        process.kill()
        process.join()
        left = registry.versions(LENT)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    found = train_on(run_llm, config, is_resumed=True)

    assert len(left) == 1
    assert registry.versions(LENT) == []
    assert_same_run(found, expected)


def test_a_wrong_key_and_a_server_of_another_llm_are_refused_before_anything_is_learnt(
    servers: list[ServerProcess], home: Path, run_llm: FrozenLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, locked = ProxyRegistry(proxies_root(home)), servers[0].url
    wrong_key = run_config(tmp_path / "key", registry.root, [locked])
    wrong_llm = run_config(tmp_path / "llm", registry.root, [locked])
    monkeypatch.setenv("PROXY_RLHF_ROLLOUT_KEY", "the-wrong-key-002")

    with pytest.raises(ServersFailed, match="refuses the key") as refusal:
        train_on(run_llm, wrong_key)
    monkeypatch.setenv("PROXY_RLHF_ROLLOUT_KEY", KEY)
    with pytest.raises(ServersFailed, match=r"serves another LLM .* refused \(fingerprint\)"):
        train_on(tiny_llm(), wrong_llm)

    assert "002" not in str(refusal.value)
    assert read_rows(wrong_key.output / METRICS_FILE) == read_rows(wrong_llm.output / METRICS_FILE) == []
    assert registry.versions(LENT) == []
    assert train_on(run_llm, wrong_key, is_resumed=True).is_done
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in each for each in written)


def test_a_server_that_is_killed_has_its_prompts_answered_by_the_other_and_a_run_without_any_can_be_resumed(
    servers: list[ServerProcess], home: Path, run_llm: FrozenLLM, expected: TrainResult, tmp_path: Path
) -> None:
    """The last test of this module, as it kills the servers."""
    hasty = ServersConfig(urls=tuple(server.url for server in servers), patience_seconds=0.5)
    config = run_config(tmp_path / "run", proxies_root(home), [], servers=hasty)

    def kill_the_next(row: Mapping[str, float], warnings: list[str]) -> None:
        servers[int(row["progress/iteration"]) - 1].kill()

    with pytest.raises(ServersFailed, match=r"no server has given an answer for 0\.5 s; the run can be resumed"):
        train_on(run_llm, config, on_iteration=kill_the_next)
    rows = read_rows(config.output / METRICS_FILE)
    found = train_on(run_llm, replace(config, servers=None), is_resumed=True)

    assert [row["rollout/differing_share"] for row in rows] == [0, 0]
    assert_same_run(found, expected)
    assert ProxyRegistry(proxies_root(home)).versions(LENT) == []
