"""A training run whose prompts are answered over vLLM is the run with its own engine, but for rounding."""

from pathlib import Path

import pytest

from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import proxies_root
from proxy_model.versions.registry import ProxyRegistry
from tests.front_door.served_runs import PROXY, run_config, train_on
from tests.front_door.server_process import ServerProcess
from tests.front_door.vllm.conftest import StartVllm
from trainer.run_log import METRICS_FILE, read_rows

DECIDED = ("answer/length", "answer/eos_rate", "reward/raw_mean", "proxy/rejections_per_token", "proxy/mean_rank")
"""What is counted of answers and decisions."""


@pytest.fixture(scope="module")
def server(start_vllm: StartVllm) -> ServerProcess:
    return start_vllm("--max-running", "8", "--max-context", "256")


def test_two_iterations_over_vllm_decide_what_the_run_s_own_engine_decides(
    server: ServerProcess, home: Path, llm: FrozenLLM, tmp_path: Path
) -> None:
    registry = ProxyRegistry(proxies_root(home))
    served = run_config(tmp_path / "served", registry.root, [server.url], iterations=2)
    own = run_config(tmp_path / "own", tmp_path / "proxies", [], iterations=2)

    train_on(llm, served)
    train_on(llm, own)

    found, expected = (read_rows(config.output / METRICS_FILE) for config in (served, own))
    assert len(found) == 2
    for row, wanted in zip(found, expected, strict=True):
        assert {name: row[name] for name in DECIDED} == pytest.approx({name: wanted[name] for name in DECIDED})
        assert row["rollout/differing_share"] == 0
        assert row["update/policy_loss"] == pytest.approx(wanted["update/policy_loss"], abs=1e-3)
    assert expected[0]["proxy/rejections_per_token"] > 0.1
    assert server.metric("proxy_requests_total") == 2 * 16
    assert registry.names() == [PROXY]
