"""A trainer as a user starts it: the installed `proxy-rlhf trainer`, in the server's home."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.front_door.server_process import PATIENCE_SECONDS

_PROGRAM = Path(sys.executable).with_name("proxy-rlhf")


@dataclass(frozen=True, slots=True)
class TrainerProcess:
    """A child process and where it listens."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def metric(self, series: str) -> float:
        """The value of a series, spelled as it is exposed; -1 when there is none."""
        for line in httpx.get(f"{self.url}/metrics", timeout=PATIENCE_SECONDS).text.splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        return -1.0

    def kill(self) -> None:
        """`kill -9`; a process that has ended already is fine."""
        self.process.kill()
        self.process.wait()


def start_trainer(home: Path, name: str = "trainer", **environment: str) -> TrainerProcess:
    """Start one and wait until it listens."""
    log = home / f"{name}.log"
    with log.open("ab") as err:
        process = subprocess.Popen(
            [str(_PROGRAM), "trainer"],
            cwd=home,
            env=trainer_environment(home, **environment),
            stdout=subprocess.PIPE,
            stderr=err,
        )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline().decode()
    found = re.search(r"trainer on (http://\S+),", said)
    assert found is not None, said + log.read_text()
    return TrainerProcess(process, found[1], log)


def trainer_environment(home: Path, **environment: str) -> dict[str, str]:
    """Of a trainer whose lease runs out soon, so that another one need not wait."""
    settings = {"PROXY_RLHF_HOME": str(home), "PROXY_RLHF_TRAINER_PORT": "0"}
    settings |= {"PROXY_RLHF_TRAINER_LEASE_SECONDS": "1.5", "PROXY_RLHF_TRAINER_NICE": "0"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PROXY_RLHF_")}
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return inherited | quiet | settings | environment
