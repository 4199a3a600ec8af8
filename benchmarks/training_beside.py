"""What a server loses while a trainer works on the same machine, with and without standing back.

    python -m benchmarks.training_beside [--share .1] [--clients 8] [--seconds 12] [--rounds 4] [--out FILE.json]

It starts `proxy-rlhf serve` with the demo LLM and two `proxy-rlhf trainer`, both at work on a proxy of their own under
the shipped harmless reward: one as it comes (one thread, nice 10), the other told to stand back for the server.
Streaming clients ask all the time. In turn nobody trains, the first trainer does, the second does; who is not meant is
stopped (SIGSTOP). A cell is the median over the rounds with its quartiles; ratios are within a round.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from benchmarks.concurrency import ask
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.served import START_SECONDS, served

REPOSITORY = Path(__file__).parents[1]
TOKENS = 24
SETTLE_SECONDS = 2.0
"""After a trainer has been woken or stopped; so long no answer counts."""

_HAS_ITERATED = re.compile(r"^proxy_training_iterations_total\{.*\} [1-9]", re.MULTILINE)

JOB = """
proxy = "beside"
prompts = "{repository}/data/harmless_prompts_train.jsonl.gz"
rewards = [{{ type = "trained", folder = "{repository}/demo/rewards/harmless" }}]
[rollout]
max_tokens = 40
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One turn."""

    tokens_per_second: float
    """Of the server, over all clients."""

    trainer_share: float
    """Processor time of the trainer that is awake, of one core's."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """One that may be asleep."""

    process: "subprocess.Popen[str]"

    def wake(self, is_awake: bool) -> None:
        """Or put it to sleep."""
        self.process.send_signal(signal.SIGCONT if is_awake else signal.SIGSTOP)

    @property
    def processor_seconds(self) -> float:
        """Used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def trainer(home: Path, **environment: str) -> Iterator[Trainer]:
    """At work, when the block begins; killed with it."""
    home.mkdir()
    (home / "job.toml").write_text(JOB.format(repository=REPOSITORY))
    models = Path(os.environ.get("PROXY_RLHF_HOME", "~/.local/share/proxy-rlhf")).expanduser() / "models"
    if models.is_dir():
        (home / "models").symlink_to(models)
    command = [sys.executable, "-m", "cli.main", "trainer", "--home", str(home), "--job", str(home / "job.toml")]
    command += ["--port", "0", "--no-store", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as process:
        try:
            _await_first_iteration(process)
            yield Trainer(process)
        finally:
            process.kill()


def _await_first_iteration(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    found = re.search(r"trainer on (\S+),", process.stdout.readline())
    deadline = time.monotonic() + START_SECONDS
    while found is not None and time.monotonic() < deadline and process.poll() is None:
        if _HAS_ITERATED.search(httpx.get(f"{found[1]}/metrics").text):
            return
        time.sleep(0.5)
    raise SystemExit("the trainer did not come to train")


async def load(url: str, num_clients: int, seconds: float) -> float:
    """Tokens a second that `num_clients` hear who ask again as soon as they have their answer."""
    headers = {"authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=None) as client:
        models = (await client.get("/v1/models")).json()["data"]
        client.headers["x-model"] = models[0]["id"]
        began = time.perf_counter()

        async def one() -> int:
            tokens = 0
            while time.perf_counter() - began < seconds:
                tokens += (await ask(client, TOKENS)).tokens
            return tokens

        tokens = sum(await asyncio.gather(*(one() for _ in range(num_clients))))
        return tokens / (time.perf_counter() - began)


def turn(url: str, arguments: argparse.Namespace, awake: Trainer | None, others: Sequence[Trainer]) -> Figure:
    """The server's speed while only `awake` trains."""
    for other in others:
        other.wake(other is awake)
    asyncio.run(load(url, arguments.clients, SETTLE_SECONDS))
    used, began = (awake.processor_seconds if awake else 0.0), time.perf_counter()
    speed = asyncio.run(load(url, arguments.clients, arguments.seconds))
    spent = (awake.processor_seconds if awake else 0.0) - used
    return Figure(speed, spent / (time.perf_counter() - began))


def report(figures: Mapping[str, Sequence[Figure]]) -> str:
    """A Markdown table."""
    alone = [each.tokens_per_second for each in figures["nobody trains"]]
    lines = ["| | server, tokens/s | of it alone | trainer, share of a core |", "|---|---:|---:|---:|"]
    for name, found in figures.items():
        speeds = [each.tokens_per_second for each in found]
        share = Spread.of([each.trainer_share for each in found])
        lines.append(f"| {name} | {Spread.of(speeds).median:.1f} | {ratios(speeds, alone)} | {share} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write all turns as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(served()).url
        plain = stack.enter_context(trainer(folder / "plain"))
        plain.wake(False)
        told = {
            "PROXY_RLHF_TRAINER_SERVER_METRICS": f"{url}/metrics",
            "PROXY_RLHF_TRAINER_BUSY_SHARE": str(arguments.share),
        }
        polite = stack.enter_context(trainer(folder / "polite", **told))
        ways = {"nobody trains": None, "trains, nice 10": plain, f"trains, share {arguments.share:g}": polite}
        everyone = (plain, polite)
        figures = alternate(
            {name: partial(turn, url, arguments, awake, everyone) for name, awake in ways.items()}, arguments.rounds
        )
    print(report(figures))
    if arguments.out:
        rows = {name: [asdict(each) for each in found] for name, found in figures.items()}
        arguments.out.write_text(json.dumps({**vars(arguments), "out": None, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
