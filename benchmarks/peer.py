"""An engine in a process of its own, perhaps of another virtual environment, that answers a line with a line.

The process gets JSON lines on its standard input, a `Job` each, and writes the seconds that it took. Between its turns
it is stopped (SIGSTOP) with all its children, so that no engine spins while another one is timed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_PREFIX = "peer: "


@dataclass(frozen=True, slots=True)
class Job:
    """Answers of exactly `tokens` tokens to `prompts`, all at once."""

    way: str
    prompts: list[list[int]]
    tokens: int


class Peer:
    """The process, as the benchmark has it."""

    def __init__(self, python: Path, module: str, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [str(python), "-m", module, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.ways: list[str] = json.loads(self._answer())
        self._signal(signal.SIGSTOP)

    def seconds(self, job: Job) -> float:
        """Have it done."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        found = float(self._answer())
        self._signal(signal.SIGSTOP)
        return found

    def close(self) -> None:
        """End it and its children."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_PREFIX):
                return line.removeprefix(_PREFIX)
        raise RuntimeError("a peer has ended")

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def answer_jobs(ways: Mapping[str, Callable[[Sequence[Sequence[int]], int], int]]) -> None:
    """In the peer's process: say which ways it knows, then time jobs until the input ends.

    A way answers prompts with so many tokens each and returns how many it gave in all.
    """
    print(_PREFIX + json.dumps(list(ways)), flush=True)
    for line in sys.stdin:
        job = Job(**json.loads(line))
        started = time.perf_counter()
        num_tokens = ways[job.way](job.prompts, job.tokens)
        seconds = time.perf_counter() - started
        assert num_tokens == len(job.prompts) * job.tokens, f"{job.way} gave {num_tokens} tokens"
        print(f"{_PREFIX}{seconds}", flush=True)
