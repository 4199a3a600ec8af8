"""schemathesis over the whole OpenAPI document, all checks: no 5xx, no undeclared status, form or hang."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy_model.llm.frozen_llm import load_llm
from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess, eventually

FUZZING = Path(__file__).parent / "fuzzing"
API_KEY = "sk-fuzzing-api"
ADMIN_KEY = "sk-fuzzing-admin"
HANG_SECONDS = "30"
NUM_VERSIONS = 3


@pytest.fixture(scope="module")
def server(start: StartServer, publisher: RankPublisher, llm_folder_with_tools: Path) -> ServerProcess:
    """With both keys, two proxies, a template that has tools, and answers of at most 256 tokens with their prompts."""
    folder = str(llm_folder_with_tools)
    llm = load_llm(folder, dtype="float32", device="cpu")
    for name in ("helpful", "harmless"):
        for _ in range(NUM_VERSIONS):
            replace(publisher, llm=llm, name=name).publish()
    keys = {"PROXY_RLHF_API_KEYS": API_KEY, "PROXY_RLHF_ADMIN_KEY": ADMIN_KEY}
    return start("--model", folder, "--max-context", "256", "--max-choices", "4", **keys)


def fuzz(server: ServerProcess, folder: Path, *flags: str) -> dict[str, Any]:
    """Run schemathesis; its report as JSON. Fails with what it found."""
    environment = os.environ | {
        "FUZZ_API_KEY": API_KEY,
        "FUZZ_ADMIN_KEY": ADMIN_KEY,
        "FUZZ_LLM": LLM,
        "FUZZ_HOME": str(server.home),
        "FUZZ_VERSIONS": str(NUM_VERSIONS),
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": str(FUZZING),
    }
    report = folder / "report.json"
    arguments = ["--request-timeout", HANG_SECONDS, "--report-json-path", str(report), "--no-color"]
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(FUZZING / "schemathesis.toml")]
    finished = subprocess.run(
        [*program, "run", f"{server.url}/openapi.json", *arguments, *flags],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, "\n".join(line[:400] for line in finished.stdout.splitlines())
    return json.loads(report.read_text())  # type: ignore[no-any-return]


def assert_unharmed(server: ServerProcess) -> None:
    """It has logged no error, holds nothing, and answers."""
    assert not [line for line in server.log() if line["level"] in ("error", "critical")]
    eventually(lambda: server.metric("num_requests_running") == 0, "a free engine")
    assert server.get("/ready").status_code == 200


def test_a_few_hundred_cases(server: ServerProcess, tmp_path: Path) -> None:
    report = fuzz(server, tmp_path, "--phases", "fuzzing", "--max-examples", "12", "--seed", "7")

    assert report["test_cases"]["generated"] >= 200
    assert_unharmed(server)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("phase", "max_examples", "least"),
    [("coverage", 1, 2500), ("fuzzing", 60, 1500), ("stateful", 200, 600)],
)
def test_several_thousand_cases(
    server: ServerProcess, tmp_path: Path, phase: str, max_examples: int, least: int
) -> None:
    flags = ("--phases", phase, "--max-examples", str(max_examples), "--continue-on-failure")
    report = fuzz(server, tmp_path, *flags)

    assert report["test_cases"]["generated"] >= least
    assert_unharmed(server)
