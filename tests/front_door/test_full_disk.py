"""A job whose disk is full waits until there is room, and ends as it would have."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from store.fine_tuning.queue import MAX_FAILURES
from tests.front_door.jobs import assert_as_if_unbroken, ended, job_of, order_of_a_kind, wait_for_step
from tests.front_door.server_process import ServerProcess, eventually, start_server
from tests.front_door.trainer_process import TrainerProcess, start_trainer
from tests.small_disk import fill, make_room, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(params=["runs", ""])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small one for the jobs' data, or for everything."""
    home = tmp_path / "home"
    if request.param:
        home.mkdir()
    with small_disk(home / request.param, 16 << 10):
        yield home / request.param


@pytest.fixture
def home(disk: Path, tmp_path: Path) -> Path:
    """PROXY_RLHF_HOME, with that disk in it."""
    return tmp_path / "home"


@pytest.fixture
def server(home: Path, llm_folder: Path) -> Iterator[ServerProcess]:
    flags = ("--model", str(llm_folder), "--dtype", "float32", "--device", "cpu", "--max-context", "1024")
    server = start_server(home, *flags)
    yield server
    server.kill()


@pytest.fixture
def trainer(server: ServerProcess, home: Path) -> Iterator[TrainerProcess]:
    trainer = start_trainer(home)
    yield trainer
    trainer.kill()


def test_a_job_waits_for_room_on_its_disk(
    server: ServerProcess, trainer: TrainerProcess, home: Path, disk: Path
) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        whole = ended(client, order_of_a_kind(client, "plain", "whole"))
        job = order_of_a_kind(client, "plain", "patient")
        wait_for_step(client, job, 2)

        fill(disk)
        eventually(lambda: trainer.metric("proxy_training_failures_total") >= MAX_FAILURES, "the failures", 300)
        assert job_of(client, job).status in ("queued", "running")
        assert job_of(client, job).error is None
        make_room(disk)

        assert_as_if_unbroken(client, home, ended(client, job), whole)
