"""The service as a process: what it shows, and what becomes of its work when it is killed or told to stop."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from proxy_model.paths import proxies_root, store_file
from proxy_model.versions.registry import ProxyRegistry
from tests.endpoint import Answer, Asked
from tests.store.ended_job import add_ended_job
from tests.trainer.service.process import TrainerProcess, eventually, start_trainer, write_job
from trainer.metrics import METRICS
from trainer.service.continuous import round_folder

Start = Callable[..., TrainerProcess]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts trainers, which are killed at the end."""
    running: list[TrainerProcess] = []

    def start_one(home: Path, job: Path | None = None, **environment: str) -> TrainerProcess:
        running.append(start_trainer(home, job, **environment))
        return running[-1]

    yield start_one
    for each in running:
        each.kill()


@pytest.fixture(scope="module")
def whole(start: Start, tmp_path_factory: pytest.TempPathFactory) -> TrainerProcess:
    """A trainer that has done two rounds of four iterations each without a break, and now waits."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = start(folder / "home", write_job(folder, iterations=4, rounds=2))
    eventually(lambda: is_done(folder / "home", 2), "the end of the last round")
    eventually(lambda: trainer.get("/ready").json()["status"] == "waiting", "the end of the work")
    return trainer


def is_done(home: Path, number: int) -> bool:
    return (round_folder(home, "tiny", number) / "done.json").exists()


def rows_of(home: Path, number: int) -> list[dict[str, float]]:
    """The whole lines of a round's log."""
    path = round_folder(home, "tiny", number) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def wait_for_iteration(home: Path, number: int, iteration: int) -> None:
    eventually(lambda: len(rows_of(home, number)) >= iteration, f"iteration {iteration} of round {number}")


def test_without_a_job_it_waits_and_is_healthy(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path / "home")

    assert trainer.get("/health").json() == {"status": "ok"}
    assert trainer.get("/ready").json() == {"status": "waiting", "proxy": None, "iteration": 0}
    assert trainer.metric('proxy_training_state{state="waiting"}') == 1
    assert trainer.get("/nothing").json()["error"]["code"] == "unknown_url"

    trainer.process.send_signal(signal.SIGTERM)
    assert trainer.process.wait(10) == 0


def test_rounds_killed_thrice_end_as_the_unbroken_ones(start: Start, whole: TrainerProcess, tmp_path: Path) -> None:
    """Each kill an iteration further on; versions and weights are the same as without them."""
    home, job = tmp_path / "home", write_job(tmp_path, iterations=4, rounds=2)

    for number, iterations in ((1, 1), (1, 3), (2, 2)):
        trainer = start(home, job)
        wait_for_iteration(home, number, iterations)
        trainer.kill()
    start(home, job)
    eventually(lambda: is_done(home, 2), "the end of the last round")

    registries = [ProxyRegistry(each / "proxies") for each in (home, whole.home)]
    assert [each.versions("tiny") for each in registries] == [[1, 2, 3, 4], [1, 2, 3, 4]]
    for version in (1, 2, 3, 4):
        first, second = (each.verify(each.resolve("tiny", version)).policy.state_dict() for each in registries)
        assert all(torch.equal(weights, second[name]) for name, weights in first.items())


class LoadedServer:
    """Whose `/metrics` say that it is busy, until it is not."""

    def __init__(self) -> None:
        self.num_running = 1
        self.num_looks = 0

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        self.num_looks += 1
        return 200, f'num_requests_running{{model="tiny"}} {self.num_running}\n'.encode()


def test_training_stands_back_while_the_server_is_busy(
    start: Start, tmp_path: Path, listen: Callable[[Answer], str]
) -> None:
    """A thousandth of the time: no iteration would be done in minutes."""
    home, loaded_server = tmp_path / "home", LoadedServer()
    url = f"{listen(loaded_server.answer)}/metrics"
    busy = {"PROXY_RLHF_TRAINER_SERVER_METRICS": url, "PROXY_RLHF_TRAINER_BUSY_SHARE": "0.001"}

    trainer = start(home, write_job(tmp_path, iterations=2, rounds=1), **busy)
    eventually(lambda: loaded_server.num_looks >= 5, "five looks at the server")
    assert rows_of(home, 1) == []
    assert trainer.get("/ready").json()["status"] == "training"

    loaded_server.num_running = 0
    eventually(lambda: is_done(home, 1), "the end of the round")


def test_old_versions_go_but_for_those_of_a_job(start: Start, tmp_path: Path) -> None:
    """Two versions a round."""
    home = tmp_path / "home"
    home.mkdir()
    add_ended_job(f"sqlite:///{store_file(home)}", "tiny", 2)

    start(home, write_job(tmp_path, iterations=3, rounds=2, keep_versions=1))
    eventually(lambda: is_done(home, 2), "the end of the last round")

    assert ProxyRegistry(proxies_root(home)).versions("tiny") == [2, 3, 4]  # a rollback returns to 3


def test_a_round_starts_from_the_weights_that_the_last_one_ended_with(whole: TrainerProcess) -> None:
    """A new proxy accepts as its prior does, so its first batch has no divergence from that; a trained one has."""
    settings = json.loads((round_folder(whole.home, "tiny", 2) / "settings.json").read_text())

    assert settings["start"] == str(round_folder(whole.home, "tiny", 1))
    assert settings["seed"] == 6
    assert rows_of(whole.home, 1)[0]["answer/kl_to_prior"] < 1e-4
    assert rows_of(whole.home, 2)[0]["answer/kl_to_prior"] > 1e-3


def test_every_documented_metric_is_a_series_with_the_log_s_value(whole: TrainerProcess) -> None:
    last = rows_of(whole.home, 2)[-1]

    exposed = whole.get("/metrics").text

    for name, text in METRICS.items():
        series = f"proxy_training_{name.replace('/', '_')}"
        assert whole.metric(f'{series}{{proxy="tiny"}}') == pytest.approx(last[name])
        assert f"# HELP {series} {text[0].upper()}{text[1:]}.\n" in exposed
    length = whole.metric('proxy_training_reward_term{proxy="tiny",term="length"}')
    assert length == pytest.approx(last["reward/raw_mean"])
    assert whole.metric('proxy_training_iterations_total{proxy="tiny"}') == 8
    assert whole.metric('proxy_training_published_versions_total{proxy="tiny"}') == 4
    assert whole.metric("proxy_training_failures_total") == 0


def test_sigterm_saves_the_iteration_and_a_restart_goes_on_behind_it(start: Start, tmp_path: Path) -> None:
    home, job = tmp_path / "home", write_job(tmp_path, iterations=400, rounds=1)
    trainer = start(home, job)
    wait_for_iteration(home, 1, 2)

    trainer.process.send_signal(signal.SIGTERM)

    assert trainer.process.wait(15) == 0
    done = len(rows_of(home, 1))
    again = start(home, job)
    eventually(lambda: again.metric('proxy_training_iterations_total{proxy="tiny"}') >= 1, "an iteration")
    assert again.metric('proxy_training_progress_iteration{proxy="tiny"}') >= done + 1
    assert [row["progress/iteration"] for row in rows_of(home, 1)[: done + 1]] == list(range(1, done + 2))


def test_a_second_trainer_waits_for_the_first_and_takes_over(start: Start, tmp_path: Path) -> None:
    home, job = tmp_path / "home", write_job(tmp_path, iterations=400, rounds=1)
    first = start(home, job)
    wait_for_iteration(home, 1, 1)
    second = start(home, job)
    eventually(lambda: "another trainer works" in second.log.read_text(), "the second one's look")
    assert second.get("/ready").json()["status"] == "waiting"
    assert second.metric("proxy_training_failures_total") == 0

    first.kill()

    eventually(lambda: second.metric('proxy_training_iterations_total{proxy="tiny"}') >= 1, "the take-over")


def test_an_iteration_that_takes_too_long_does_not_hold_sigterm_up(start: Start, tmp_path: Path) -> None:
    home, job = tmp_path / "home", write_job(tmp_path, iterations=400, rounds=1)
    job.write_text(job.read_text().replace("prompts_per_iteration = 16", "prompts_per_iteration = 4000"))
    trainer = start(home, job, PROXY_RLHF_TRAINER_STOP_SECONDS="0.5")
    eventually(lambda: (round_folder(home, "tiny", 1) / "state.safetensors").exists(), "the first state")
    time.sleep(1)  # of an iteration that answers 4,000 prompts

    trainer.process.send_signal(signal.SIGTERM)

    assert trainer.process.wait(10) == 0
    assert "is dropped" in trainer.log.read_text()


def test_a_run_that_fails_is_told_and_tried_again(start: Start, tmp_path: Path) -> None:
    home, job = tmp_path / "home", write_job(tmp_path, iterations=1, rounds=1)
    job.write_text(job.read_text().replace("max_tokens = 24", "max_tokens = 127"))  # leaves no room for a prompt
    trainer = start(home, job)
    eventually(lambda: trainer.metric("proxy_training_failures_total") >= 1, "the failure")

    refused = trainer.get("/ready")

    assert refused.status_code == 503
    assert "DataError" in refused.json()["error"]["message"]
    assert str(tmp_path) not in refused.text
    assert trainer.get("/health").status_code == 200
    write_job(tmp_path, iterations=1, rounds=1)
    eventually(lambda: is_done(home, 1), "the repaired job's end")
