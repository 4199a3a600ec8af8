"""The trainer's service over a tiny LLM whose proxies are paid by length: as a process, and how to talk to it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from tests.trainer.runs import parts_in_miniature
from trainer.loop import train
from trainer.service.serve import serve
from trainer.service.settings import load_settings

REPOSITORY = Path(__file__).parents[3]
PATIENCE_SECONDS = 120.0

JOB = """
proxy = "tiny"
prompts = "prompts.jsonl"
rewards = [{{ type = "trained", folder = "reward" }}]
num_prompts = {num_prompts}
publish_every = 2
keep_versions = {keep_versions}
seed = 5
tensorboard = false
[shape]
hidden_size = 16
initial_acceptance = 0.75
[skam]
p_t = 0.0005
max_candidates = 8
[rollout]
prompts_per_iteration = 16
max_tokens = 24
max_running = 12
[shaping]
penalty_weight = 0.0
[ppo]
learning_rate = 0.003
target_kl = 0.05
[continuous]
interval_seconds = {interval_seconds}
rounds = {rounds}
"""


def write_job(
    folder: Path, *, iterations: int, rounds: int, interval_seconds: float = 0.0, keep_versions: int = 0
) -> Path:
    """A job of `rounds` rounds with so many iterations each."""
    path = folder / "job.toml"
    values = {"rounds": rounds, "interval_seconds": interval_seconds, "keep_versions": keep_versions}
    path.write_text(JOB.format(num_prompts=16 * iterations, **values))
    return path


@dataclass(frozen=True, slots=True)
class TrainerProcess:
    """A child process, and where it listens."""

    process: "subprocess.Popen[bytes]"
    url: str
    home: Path
    log: Path

    def get(self, path: str) -> httpx.Response:
        """One GET."""
        return httpx.get(self.url + path, timeout=PATIENCE_SECONDS)

    def metric(self, series: str) -> float:
        """The value of a series, spelled as it is exposed; -1 when there is none."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        return -1.0

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()


def start_trainer(home: Path, job: Path | None = None, **environment: str) -> TrainerProcess:
    """Start this file as a script and wait until it listens."""
    log = home.with_name(f"{home.name}.log")
    own = {"PROXY_RLHF_HOME": str(home), "PROXY_RLHF_TRAINER_PORT": "0", "PROXY_RLHF_TRAINER_NICE": "3"}
    if job is not None:
        own["PROXY_RLHF_TRAINER_JOB"] = str(job)
    command = [sys.executable, "-m", "tests.trainer.service.process"]
    with log.open("ab") as err:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | own | environment, stdout=subprocess.PIPE, stderr=err
        )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline().decode()
    found = re.search(r"trainer on (http://\S+),", said)
    assert found is not None, said + log.read_text()
    return TrainerProcess(process, found[1], home, log)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(serve(load_settings(os.environ, {}), partial(train, parts=parts_in_miniature())))
