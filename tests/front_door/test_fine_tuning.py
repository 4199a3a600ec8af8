"""Fine-tuning from the outside: the stock SDK, a server, and trainers that come and go, in one home."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from proxy_model.registry import ProxyRegistry
from tests.front_door.conftest import LLM, StartServer
from tests.front_door.server_process import ServerProcess, eventually
from tests.front_door.trainer_process import TrainerProcess, start_trainer

StartTrainer = Callable[..., TrainerProcess]

LONG = {"type": "length", "name": "long", "per_token": 1.0}
SIZES = {"batch_size": 4, "max_tokens": 8}
ENDED = ("succeeded", "failed", "cancelled")


def rows(count: int = 12) -> bytes:
    lines = [{"messages": [{"role": "user", "content": f"question {number}"}]} for number in range(count)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture(scope="module")
def server(start: StartServer) -> ServerProcess:
    """Without keys; it knows no proxy yet."""
    return start("--max-context", "1024")


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
def trainer(home: Path) -> Iterator[StartTrainer]:
    """Start trainers; they are killed at the end of the test."""
    running: list[TrainerProcess] = []

    def start_one(name: str = "trainer", **environment: str) -> TrainerProcess:
        running.append(start_trainer(home, name, **environment))
        return running[-1]

    yield start_one
    for each in running:
        each.kill()


def order(client: openai.OpenAI, content: bytes | None = None, grader: Any = LONG, **hyperparameters: Any) -> Any:
    file = client.files.create(file=("prompts.jsonl", content or rows()), purpose="fine-tune")
    suffix = hyperparameters.pop("suffix", openai.omit)
    method: Any = {"grader": grader, "hyperparameters": SIZES | hyperparameters}
    return client.fine_tuning.jobs.create(
        model=LLM,
        training_file=file.id,
        suffix=suffix,
        seed=5,
        method={"type": "reinforcement", "reinforcement": method},
    )


def job_of(client: openai.OpenAI, job: Any) -> Any:
    return client.fine_tuning.jobs.retrieve(job.id)


def ended(client: openai.OpenAI, job: Any) -> Any:
    eventually(lambda: job_of(client, job).status in ENDED, "the job's end", 120)
    return job_of(client, job)


def steps(client: openai.OpenAI, job: Any) -> list[int]:
    """The iterations that its events tell of, in their order."""
    events: Any = client.fine_tuning.jobs.list_events(job.id, limit=100)
    return [event.data["progress/iteration"] for event in events if event.type == "metrics"][::-1]


def wait_for_step(client: openai.OpenAI, job: Any, step: int) -> None:
    eventually(lambda: len(steps(client, job)) >= step, f"step {step}")


def test_a_job_goes_from_a_file_to_an_answer(client: openai.OpenAI, trainer: StartTrainer, home: Path) -> None:
    trainer()
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


def kill_often(client: openai.OpenAI, trainer: StartTrainer, num_kills: int, seed: int) -> Any:
    """Order a job, and kill its trainer at random moments; the job, once it has ended."""
    moments = random.Random(seed)
    job = order(client, suffix=f"hardy-{seed}", n_epochs=5 + num_kills // 10, checkpoint_interval=4)
    for number in range(num_kills):
        each = trainer(f"killed-{number}")
        time.sleep(moments.uniform(0, 4))
        each.kill()
        if job_of(client, job).status in ENDED:
            break
    trainer("last")
    return ended(client, job)


def assert_as_if_unbroken(client: openai.OpenAI, trainer: StartTrainer, home: Path, broken: Any) -> None:
    """Status, steps, checkpoints, versions and weights are those of the same job without kills."""
    ordered = broken.method.reinforcement.hyperparameters
    whole = ended(client, order(client, suffix="whole", n_epochs=ordered.n_epochs, checkpoint_interval=4))

    assert (broken.status, broken.error) == ("succeeded", None)
    assert broken.trained_tokens == whole.trained_tokens
    assert steps(client, broken) == steps(client, whole)
    registry = ProxyRegistry(home / "proxies")
    names = [job.fine_tuned_model.partition(":")[2] for job in (broken, whole)]
    found, wanted = (registry.versions(name) for name in names)
    assert found == wanted
    for version in found:
        first, second = (registry.verify(registry.resolve(name, version)).policy.state_dict() for name in names)
        assert all(torch.equal(weights, second[key]) for key, weights in first.items())
    assert [each.step_number for each in client.fine_tuning.jobs.checkpoints.list(broken.id)] == [
        each.step_number for each in client.fine_tuning.jobs.checkpoints.list(whole.id)
    ]


def test_a_killed_trainer_leaves_a_job_to_the_next_one(
    server: ServerProcess, client: openai.OpenAI, trainer: StartTrainer, home: Path
) -> None:
    broken = kill_often(client, trainer, 3, seed=1)

    assert_as_if_unbroken(client, trainer, home, broken)
    assert httpx.get(f"{server.url}/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_change_nothing(
    server: ServerProcess, client: openai.OpenAI, trainer: StartTrainer, home: Path
) -> None:
    broken = kill_often(client, trainer, 100, seed=2)

    assert_as_if_unbroken(client, trainer, home, broken)
    assert not [line for line in server.log() if line["level"] in ("error", "critical")]
