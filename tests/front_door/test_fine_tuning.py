"""Fine-tuning from the outside: the stock SDK, a server, and trainers that come and go, in one home."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import rewards_root
from proxy_model.versions.registry import ProxyRegistry
from tests.front_door.conftest import LLM, StartServer
from tests.front_door.forked_trainers import start_forked_trainer
from tests.front_door.jobs import (
    ENDED,
    KINDS,
    assert_as_if_unbroken,
    ended,
    job_of,
    order,
    order_of_a_kind,
    rows,
    steps,
    wait_for_step,
)
from tests.front_door.server_process import ServerProcess, eventually
from tests.front_door.trainer_process import TrainerProcess, start_trainer
from tests.trainer.tiny_reward import write_tiny_reward

StartTrainer = Callable[..., TrainerProcess]


@pytest.fixture(scope="module")
def home(store_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for each store."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(start: StartServer, store_environment: dict[str, str]) -> ServerProcess:
    """Without keys; it knows no proxy yet."""
    return start("--max-context", "1024", **store_environment)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
def trainer(home: Path, store_environment: dict[str, str]) -> Iterator[StartTrainer]:
    """Start trainers; they are killed at the end of the test."""
    running: list[TrainerProcess] = []

    def start_one(name: str = "trainer", **environment: str) -> TrainerProcess:
        running.append(start_trainer(home, name, **store_environment, **environment))
        return running[-1]

    yield start_one
    for each in running:
        each.kill()


def test_a_job_goes_from_a_file_to_an_answer(client: openai.OpenAI, trainer: StartTrainer, home: Path) -> None:
    worker = trainer()
    job = order(client, suffix="wordy", n_epochs=2, checkpoint_interval=3)

    done = ended(client, job)

    assert (done.status, done.fine_tuned_model, done.error) == ("succeeded", f"{LLM}:wordy", None)
    assert done.trained_tokens > 0
    assert done.finished_at >= done.created_at
    answer = client.chat.completions.create(
        model=done.fine_tuned_model, messages=[{"role": "user", "content": "hello"}], max_tokens=4
    )
    assert answer.model == f"{LLM}:wordy"
    assert str(answer.system_fingerprint).endswith("wordy@2")
    assert done.fine_tuned_model in [model.id for model in client.models.list()]
    assert steps(client, job) == [1, 2, 3, 4, 5, 6]
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [(each.step_number, each.fine_tuned_model_checkpoint) for each in checkpoints] == [
        (6, f"{LLM}:wordy@2"),
        (3, f"{LLM}:wordy@1"),
    ]
    eventually(lambda: not (home / "runs" / job.id).exists(), "the end of its data on the disk")
    assert worker.metric('proxy_training_jobs{status="succeeded"}') == 1


def test_bad_lines_fail_a_job_by_number(client: openai.OpenAI, trainer: StartTrainer) -> None:
    trainer()
    job = order(client, rows(11) + b'{"messages": []}\n')

    failed = ended(client, job)

    assert (failed.status, failed.error.code, failed.error.param) == (
        "failed",
        "invalid_training_file",
        "training_file",
    )
    assert failed.error.message.startswith("1 of 12 lines cannot be used: line 12: ")
    assert failed.fine_tuned_model is None


def test_a_running_job_is_paused_resumed_and_cancelled(client: openai.OpenAI, trainer: StartTrainer) -> None:
    trainer()
    job = order(client, n_epochs=50, suffix="patient")
    wait_for_step(client, job, 2)

    client.fine_tuning.jobs.pause(job.id)
    time.sleep(1.5)
    paused_at = steps(client, job)
    time.sleep(1)
    assert steps(client, job) == paused_at
    other = order(client)
    assert ended(client, other).status == "succeeded"  # the trainer is free meanwhile

    client.fine_tuning.jobs.resume(job.id)
    wait_for_step(client, job, len(paused_at) + 2)
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    began = time.monotonic()
    assert ended(client, order(client)).status == "succeeded"

    assert time.monotonic() - began < 30
    assert cancelled.status == job_of(client, job).status == "cancelled"
    found = steps(client, job)
    assert found == list(range(1, len(found) + 1))
    assert len(found) < 150


def test_two_trainers_never_do_one_job_twice(client: openai.OpenAI, trainer: StartTrainer, home: Path) -> None:
    for name in ("first", "second"):
        trainer(name)
    jobs = [order(client, suffix=f"shared-{number}") for number in range(4)]

    assert [ended(client, job).status for job in jobs] == ["succeeded"] * 4

    registry = ProxyRegistry(home / "proxies")
    for number, job in enumerate(jobs):
        assert registry.versions(f"shared-{number}") == [1]
        assert steps(client, job) == [1, 2, 3]
    assert "a run failed" not in (home / "first.log").read_text() + (home / "second.log").read_text()


def kill_often(
    client: openai.OpenAI, start: Callable[[], Any], num_kills: int, longest: float, kinds: tuple[str, ...]
) -> list[tuple[str, Any]]:
    """Kill trainers at random moments of their first `longest` seconds; the jobs that they had, by kind."""
    moments = random.Random(num_kills)
    jobs: list[tuple[str, Any]] = []
    for number in range(num_kills):
        if not jobs or job_of(client, jobs[-1][1]).status in ENDED:
            kind = kinds[len(jobs) % len(kinds)]
            jobs.append((kind, order_of_a_kind(client, kind, f"hardy-{num_kills}-{number}")))
        each = start()
        time.sleep(moments.uniform(0, longest))
        each.kill()
    return jobs


def test_a_killed_trainer_leaves_a_job_to_the_next_one(
    server: ServerProcess, client: openai.OpenAI, trainer: StartTrainer, home: Path
) -> None:
    [(_, broken)] = kill_often(client, trainer, 3, 1.5, ("plain",))
    trainer("last")
    whole = order_of_a_kind(client, "plain", "whole")

    assert_as_if_unbroken(client, home, ended(client, broken), ended(client, whole))
    assert httpx.get(f"{server.url}/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_change_nothing(
    server: ServerProcess,
    client: openai.OpenAI,
    trainer: StartTrainer,
    home: Path,
    store_environment: dict[str, str],
    llm: FrozenLLM,
) -> None:
    """A trainer may live as long as a whole job takes, so that twenty in a row get nowhere by no bad luck."""
    write_tiny_reward(rewards_root(home) / "calm", llm)
    wholes, longest = {}, 0.0
    for kind in KINDS:
        began = time.monotonic()
        first = start_forked_trainer(home, "whole", **store_environment)
        wholes[kind] = ended(client, order_of_a_kind(client, kind, f"whole-{kind}"))
        longest = max(longest, time.monotonic() - began)
        first.kill()

    jobs = kill_often(client, lambda: start_forked_trainer(home, "killed", **store_environment), 100, longest, KINDS)
    trainer("last")

    assert {kind for kind, _ in jobs} == set(KINDS)
    for kind, job in jobs:
        assert_as_if_unbroken(client, home, ended(client, job), wholes[kind])
    assert not [line for line in server.log() if line["level"] in ("error", "critical")]
