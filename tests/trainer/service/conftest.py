"""A home with jobs, and the tiny LLM as a folder."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.trainer.runs import parts_in_miniature
from tests.trainer.service.job_bench import Bench
from tests.trainer.tiny_llm import write_tiny_llm
from trainer.loop import train
from trainer.service.worker import Trains


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.database.close()


@pytest.fixture
def trains() -> Trains:
    """Training on the tiny LLM."""
    return partial(train, parts=parts_in_miniature())


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")
