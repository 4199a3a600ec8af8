"""`make demo`: retrain a small proxy from the shipped data while a server answers under each version it publishes.

A server of its own is started unless one answers at the address already; it only ever meets the trainer in the folder
of published proxies. After each new version the same question is asked again, so the change shows as it happens.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from proxy_model.decision.config import SkamConfig
from proxy_model.errors import ProxyRlhfError
from proxy_model.llm.embedded import DEFAULT_LLM
from proxy_model.paths import proxies_root
from trainer.algorithm_config import PpoConfig
from trainer.config import RolloutConfig, TrainConfig
from trainer.loop import train
from trainer.rewards.terms import trained_term

PROXY = "demo"
QUESTION = "My neighbour keeps parking in my spot. How can I get back at him?"
_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 300.0


class ServerMissing(ProxyRlhfError):
    """The server that the demo wants to ask did not come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said, and under which version."""

    text: str
    proxy: str
    rejections: int


def main(num_prompts: int = 480, url: str | None = None) -> int:
    """Train on `num_prompts` harmlessness prompts; a version every two iterations. Returns the exit status."""
    console = Console()
    address = url or f"http://{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
    with _server(address, console) as client, tempfile.TemporaryDirectory(prefix="proxy-rlhf-demo-") as folder:
        _show(console, "the LLM alone", ask(client, "base"))
        watcher = _Watcher(client, console)
        train(demo_config(Path(folder) / "run", num_prompts), on_iteration=watcher)
        console.print(f"\nTalk to it: proxy-rlhf chat --model {DEFAULT_LLM}:{PROXY}", style="bold")
    return 0


def demo_config(output: Path, num_prompts: int) -> TrainConfig:
    """A small run of the shipped harmless reward on the shipped prompts."""
    return TrainConfig(
        output=output,
        prompts=(_ROOT / "data" / "harmless_prompts_train.jsonl.gz",),
        rewards=(trained_term(_ROOT / "demo" / "rewards" / "harmless"),),
        proxy=PROXY,
        model=DEFAULT_LLM,
        registry=proxies_root(),
        num_prompts=num_prompts,
        publish_every=2,
        tensorboard=False,
        skam=SkamConfig(),
        rollout=RolloutConfig(prompts_per_iteration=24, max_tokens=40, max_prompt_tokens=96, max_running=24),
        ppo=PpoConfig(learning_rate=1e-3, minibatches=8),
    )


def ask(client: httpx.Client, proxy: str) -> Answer:
    """The greedy answer to the demo's question under `proxy`."""
    body = {
        "model": f"{DEFAULT_LLM}:{proxy}",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 48,
    }
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    used = answer.get("proxy") or {}
    return Answer(
        text=answer["choices"][0]["message"]["content"],
        proxy=f"{used.get('id')}@{used.get('version')}" if used.get("version") else "base",
        rejections=used.get("rejections", 0),
    )


class _Watcher:
    """Reports an iteration, and asks again once the server has a new version."""

    def __init__(self, client: httpx.Client, console: Console) -> None:
        self._client = client
        self._console = console
        self._seen = ""

    def __call__(self, row: Mapping[str, float], warnings: list[str]) -> None:
        self._console.print(
            f"prompts {row['progress/prompts']:4.0f}   reward {row['reward/raw_mean']:+.2f}   "
            f"rejections per token {row['proxy/rejections_per_token']:.2f}   "
            f"{row['speed/tokens_per_second']:.0f} tokens/s"
        )
        for warning in warnings:
            self._console.print(f"warning: {warning}", style="yellow")
        try:
            answer = ask(self._client, PROXY)
        except httpx.HTTPError:  # 404 until the first version is out; a server that is gone does not end the training
            return
        if answer.proxy != self._seen:
            self._seen = answer.proxy
            _show(self._console, answer.proxy, answer)


def _show(console: Console, name: str, answer: Answer) -> None:
    console.print(f"\n{name} ({answer.rejections} rejections) to: {QUESTION}", style="bold cyan")
    console.print(f"  {' '.join(answer.text.split())}\n", highlight=False)


@contextmanager
def _server(address: str, console: Console) -> Iterator[httpx.Client]:
    """A client of the server at `address`, which is started here if nothing answers there."""
    with httpx.Client(base_url=address, timeout=300.0) as client:
        if _is_ready(client):
            yield client
            return
        url = httpx.URL(address)
        console.print(f"starting a server on {address} ...")
        command = [sys.executable, "-m", "cli.main", "serve", "--host", url.host, "--port", str(url.port)]
        with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                _wait(client, process)
                yield client
            finally:
                process.terminate()


def _wait(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _is_ready(client):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerMissing(f"no server came up at {client.base_url}: start one with `make serve` and look why")
        time.sleep(0.5)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False
