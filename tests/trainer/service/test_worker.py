"""The worker over fakes: no model is loaded, nothing is trained."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from proxy_model.decision.config import PolicyConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import OutputTaken
from tests.trainer.runs import small_config
from tests.trainer.service.process import eventually
from trainer.config import TrainConfig
from trainer.loop import Supervision, TrainResult, Watcher
from trainer.service.gauges import TrainingGauges
from trainer.service.work import Work
from trainer.service.worker import Status, Worker


@dataclass
class Source:
    """Hands out the same run until it is finished."""

    work: Work
    finished: list[Work] = field(default_factory=list)

    def next_work(self) -> Work | None:
        return None if self.finished else self.work

    def finish(self, work: Work) -> None:
        self.finished.append(work)


@dataclass
class Trains:
    """Raises what it is given, one at a time; then waits to be stopped if it is to, and is done otherwise."""

    errors: list[Exception] = field(default_factory=list)
    is_endless: bool = False
    calls: int = 0

    def __call__(
        self, config: TrainConfig, *, is_resumed: bool, on_iteration: Watcher, supervision: Supervision
    ) -> TrainResult:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.is_endless:
            eventually(supervision.must_stop, "the stop")
        policy = ProxyPolicy(PolicyConfig(llm_hidden_size=2, hidden_size=2))
        return TrainResult(
            is_done=not self.is_endless,
            iterations=1,
            prompts_seen=2,
            published=(),
            policy=policy,
            metrics={},
            warnings=(),
        )


Build = Callable[[Trains], tuple[Worker, Source, TrainingGauges]]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A worker that retries after a hundredth of a second, and then after twice that."""
    monkeypatch.setattr("trainer.service.worker._FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr("trainer.service.worker.POLL_SECONDS", 0.01)
    work = Work(config=small_config(tmp_path / "run", iterations=1), is_resumed=False)

    def build_one(trains: Trains) -> tuple[Worker, Source, TrainingGauges]:
        source, gauges = Source(work), TrainingGauges()
        return Worker(source, gauges, torch.get_num_threads(), trains), source, gauges

    return build_one


def failures(gauges: TrainingGauges) -> str:
    lines = gauges.expose().decode().splitlines()
    return next(line for line in lines if line.startswith("proxy_training_failures_total ")).partition(" ")[2]


def test_a_run_that_fails_is_tried_until_it_goes_well(build: Build) -> None:
    trains = Trains(errors=[MemoryError(), ValueError("a bad day")])
    worker, source, gauges = build(trains)

    worker.start()
    eventually(lambda: source.finished, "the end of the work")
    eventually(lambda: worker.status.state == "waiting", "the wait for more")
    worker.stop()

    assert (trains.calls, failures(gauges), worker.status.problem) == (3, "2.0", None)


def test_a_folder_that_another_trainer_holds_is_no_failure(build: Build) -> None:
    worker, source, gauges = build(Trains(errors=[OutputTaken("another trainer works in it")]))

    worker.start()
    eventually(lambda: source.finished, "the end of the work")
    worker.stop()

    assert failures(gauges) == "0.0"


def test_a_run_that_is_stopped_on_its_way_is_not_finished(build: Build) -> None:
    worker, source, _ = build(Trains(is_endless=True))
    worker.start()
    eventually(lambda: worker.status.state == "training", "the run")

    worker.stop()

    eventually(lambda: not worker.is_alive, "the thread's end")
    assert source.finished == []
    assert worker.status.state == "stopping"


def test_what_is_wrong_is_told_by_its_kind_until_a_run_goes_well(build: Build) -> None:
    trains = Trains(errors=[KeyError("secret")] * 400)
    worker, _, _ = build(trains)

    worker.start()
    eventually(lambda: worker.status == Status("failing", "tiny", problem="KeyError"), "the failure")
    worker.stop()

    assert worker.status.problem is None
