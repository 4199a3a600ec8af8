"""Fine-tuning jobs in this process: orders, the files of each method, and the trainer's side without its threads."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proxy_model.llm.identity import open_tokenizer
from proxy_model.llm.tokenizer import ChatTokenizer
from store.database import Database
from store.files import Files
from store.fine_tuning.jobs import Job, Jobs, Order
from store.fine_tuning.journal import Event, Journal
from store.fine_tuning.queue import JobQueue
from store.fine_tuning.specification import Method, Specification
from store.page import Page
from tests.trainer.tiny_llm import tiny_llm
from trainer.service.file_clerk import FileClerk
from trainer.service.gauges import TrainingGauges
from trainer.service.job_source import JobSource
from trainer.service.worker import Trains, Worker

LONG = {"type": "length", "name": "long", "per_token": 1.0}


def prompt_rows(count: int = 12, long: int = 0) -> str:
    """Prompts, the last `long` of which do not fit."""
    asked = [f"question {number}" + " and so on" * (40 if number >= count - long else 0) for number in range(count)]
    return "".join(json.dumps({"prompt": [{"role": "user", "content": text}]}) + "\n" for text in asked)


ROWS = prompt_rows()


def specification(**hyperparameters: Any) -> Specification:
    sizes = {"batch_size": 4, "max_tokens": 8, "num_prompts": 12} | hyperparameters
    method = {"type": "reinforcement", "reinforcement": {"grader": LONG, "hyperparameters": sizes}}
    return Specification(llm="tiny", llm_source="tiny", method=Method.parse(method), proxy="wordy", seed=5)


LIKELY = "äåæçèéêëìí"
"""Every second byte is one that the tiny LLM is likely to say."""


def likely(start: int, step: int) -> str:
    """An answer that the proxy could give, in part."""
    return "".join(LIKELY[(start + step * number) % len(LIKELY)] for number in range(12))


def pair_rows(count: int = 12, long: int = 0, unlikely: int = 0) -> str:
    """Pairs to prefer. The last `long` have prompts that do not fit, the first `unlikely` what no proxy could say."""
    asked = [f"question {number}" + " and so on" * (40 if number >= count - long else 0) for number in range(count)]
    rows = [
        {
            "prompt": [{"role": "user", "content": text}],
            "chosen": likely(number, 1),
            "rejected": "Z" * 40 if number < unlikely else likely(number, 3),
        }
        for number, text in enumerate(asked)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


ANSWER_ROWS = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"question {n}"},
                {"role": "assistant", "content": likely(n, 1)},
            ]
        }
    )
    + "\n"
    for n in range(1, 13)
)


def given(kind: str, llm_folder: Path, **hyperparameters: Any) -> Specification:
    """A job that learns from answers that are given, on an LLM in a folder."""
    sizes = {"batch_size": 4, "max_tokens": 24, "p_t": 0.0005} | hyperparameters
    method = {"type": kind, kind: {"hyperparameters": sizes}}
    return Specification(llm="tiny", llm_source=str(llm_folder), method=Method.parse(method), proxy="wordy", seed=5)


def _tokenizer_of(source: str) -> tuple[ChatTokenizer, int]:
    """Of the LLM in a folder, or of the tiny one that stands in for it."""
    if source != "tiny":
        return open_tokenizer(source)
    llm = tiny_llm()
    return llm.tokenizer, llm.max_context


class Bench:
    """A home, its store, and the trainer's side of jobs without its threads."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = Database(f"sqlite:///{home}/store.sqlite3")
        self.jobs, self.queue, self.files = Jobs(self.database), JobQueue(self.database), Files(self.database)
        self.clerk = FileClerk(self.queue, self.files)

    def order(
        self,
        content: str = ROWS,
        ordered: Specification | None = None,
        held_out: str | None = None,
        **hyperparameters: Any,
    ) -> Job:
        """A job whose files have been looked at."""
        chosen = ordered or specification(**hyperparameters)
        job = self.jobs.create(
            Order(
                owner="me",
                proxy="wordy",
                specification=chosen.to_json(),
                training_file=self.upload(content),
                validation_file=None if held_out is None else self.upload(held_out),
                metadata={},
            )
        )
        assert self.clerk.look()
        return job

    def upload(self, content: str) -> str:
        return self.files.add("me", "a.jsonl", "fine-tune", io.BytesIO(content.encode())).id

    def source(self, lease_seconds: float = 30.0) -> JobSource:
        return JobSource(self.database, self.home, lease_seconds, tokenizer_of=_tokenizer_of)

    def worker(self, trains: Trains, source: JobSource | None = None) -> Worker:
        return Worker(source or self.source(), TrainingGauges(), 1, trains)

    def now(self, job: Job) -> Job:
        found = self.jobs.get("me", job.id)
        assert found is not None
        return found

    def events(self, job: Job) -> Sequence[Event]:
        """Oldest first."""
        return Journal(self.database).events(job.id, Page(limit=100))[0]

    def messages(self, job: Job) -> list[str]:
        return [event.message for event in self.events(job)]

    def rows(self, job: Job) -> list[dict[str, Any]]:
        """The metrics of its iterations."""
        return [event.data for event in self.events(job) if event.type == "metrics" and event.data]

    def steps(self, job: Job) -> list[int]:
        return [row["progress/iteration"] for row in self.rows(job)]
