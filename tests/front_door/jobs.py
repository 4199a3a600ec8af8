"""Fine-tuning jobs through the stock SDK: what is ordered, and how it ended."""

import json
from pathlib import Path
from typing import Any

import openai
import torch

from proxy_model.versions.registry import ProxyRegistry
from tests.front_door.conftest import LLM
from tests.front_door.server_process import eventually

LONG = {"type": "length", "name": "long", "per_token": 1.0}
SIZES = {"batch_size": 4, "max_tokens": 8}
ENDED = ("succeeded", "failed", "cancelled")
GATES = {"judge": "calm", "num_prompts": 4, "max_tokens": 8, "max_rejections_per_token": 50}
KINDS = ("plain", "gated", "dpo")


def rows(count: int = 12) -> bytes:
    lines = [{"messages": [{"role": "user", "content": f"question {number}"}]} for number in range(count)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def pairs(count: int = 12) -> bytes:
    """Their answers have characters in all of which the tiny LLM sees some sense."""
    characters = "".join(chr(code) for code in range(0x21, 0x7F))
    lines = [
        {
            "prompt": [{"role": "user", "content": f"pair {number}"}],
            "chosen": characters[number : number + 40],
            "rejected": characters[-number - 1 : -number - 41 : -1],
        }
        for number in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


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


def order_of_a_kind(client: openai.OpenAI, kind: str, suffix: str) -> Any:
    """A job of some twenty iterations that publishes on its way."""
    if kind == "plain":
        return order(client, suffix=suffix, n_epochs=7, checkpoint_interval=4)
    file, held_out = (client.files.create(file=("p.jsonl", pairs()), purpose="fine-tune").id for _ in range(2))
    sizes: Any = SIZES | {"n_epochs": 7, "checkpoint_interval": 4, "max_tokens": 32}
    return client.fine_tuning.jobs.create(
        model=LLM,
        training_file=file,
        suffix=suffix,
        seed=5,
        method={"type": "dpo", "dpo": {"hyperparameters": sizes}},
        validation_file=held_out if kind == "gated" else openai.omit,
        extra_body={"gates": GATES} if kind == "gated" else None,
    )


def assert_as_if_unbroken(client: openai.OpenAI, home: Path, broken: Any, whole: Any) -> None:
    """Status, steps, checkpoints, versions and weights are those of the same job without kills."""
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
    assert len({str(registry.aliases(name).versions) for name in names}) == 1
    assert len({str(registry.verdicts(name).by_version) for name in names}) == 1
    assert [each.step_number for each in client.fine_tuning.jobs.checkpoints.list(broken.id)] == [
        each.step_number for each in client.fine_tuning.jobs.checkpoints.list(whole.id)
    ]
