import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy_model.errors import InvalidParameter, OutputTaken
from tests.trainer.service.process import write_job
from trainer.lock import sole_trainer
from trainer.service.continuous import ContinuousJob, read_job, round_folder
from trainer.service.work import Work


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def do(work: Work | None) -> Work:
    """Leave what a complete run leaves."""
    assert work is not None
    work.config.output.mkdir(parents=True, exist_ok=True)
    (work.config.output / "state.safetensors").touch()
    return work


def test_rounds_follow_each_other_by_the_interval_and_end_with_the_last(tmp_path: Path) -> None:
    clock = Clock()
    job = ContinuousJob(write_job(tmp_path, iterations=1, rounds=2, interval_seconds=60), tmp_path, clock)

    first = do(job.next_work())
    clock.now = 1010.0
    job.finish(first)
    clock.now = 1069.0
    assert job.next_work() is None
    clock.now = 1070.0
    second = do(job.next_work())
    job.finish(second)
    clock.now = 9999.0

    assert (first.config.output, first.config.seed, first.config.start) == (round_folder(tmp_path, "tiny", 1), 5, None)
    assert (second.config.output, second.config.seed) == (round_folder(tmp_path, "tiny", 2), 6)
    assert second.config.start == first.config.output
    assert second.config.registry == tmp_path / "proxies"
    assert job.next_work() is None


def test_the_interval_survives_a_restart(tmp_path: Path) -> None:
    path, clock = write_job(tmp_path, iterations=1, rounds=0, interval_seconds=60), Clock()
    before = ContinuousJob(path, tmp_path, clock)
    before.finish(do(before.next_work()))

    after = ContinuousJob(path, tmp_path, clock)

    assert after.next_work() is None
    clock.now += 60
    assert do(after.next_work()).config.output.name == "2"


def test_a_round_that_has_begun_ends_under_its_own_settings(tmp_path: Path) -> None:
    path = write_job(tmp_path, iterations=1, rounds=0)
    job = ContinuousJob(path, tmp_path)
    first = do(job.next_work())
    settings = {
        "output": "x",
        "prompts": "p",
        "rewards": [{"type": "trained", "folder": "r"}],
        "proxy": "tiny",
        "num_prompts": 77,
    }
    (first.config.output / "settings.json").write_text(json.dumps(settings))
    write_job(tmp_path, iterations=3, rounds=0)

    resumed = job.next_work()
    assert resumed is not None
    job.finish(resumed)
    following = job.next_work()

    assert resumed.is_resumed
    assert (resumed.config.num_prompts, resumed.config.output) == (77, first.config.output)
    assert following is not None
    assert following.config.num_prompts == 48


def test_a_round_that_was_killed_before_its_first_state_begins_anew(tmp_path: Path) -> None:
    job = ContinuousJob(write_job(tmp_path, iterations=1, rounds=0), tmp_path)
    work = job.next_work()
    assert work is not None
    work.config.output.mkdir(parents=True)
    (work.config.output / "settings.json").write_text("{")

    again = job.next_work()

    assert again == work
    assert not work.config.output.exists()


def test_a_round_that_another_trainer_starts_right_now_is_left_to_it(tmp_path: Path) -> None:
    job = ContinuousJob(write_job(tmp_path, iterations=1, rounds=0), tmp_path)
    folder = round_folder(tmp_path, "tiny", 1)

    with sole_trainer(folder):
        folder.mkdir()
        with pytest.raises(OutputTaken):
            job.next_work()

    assert folder.exists()


def test_only_the_state_that_the_next_round_needs_is_kept(tmp_path: Path) -> None:
    job = ContinuousJob(write_job(tmp_path, iterations=1, rounds=0), tmp_path)
    for _ in range(4):
        job.finish(do(job.next_work()))

    kept = [(round_folder(tmp_path, "tiny", number) / "state.safetensors").exists() for number in (1, 2, 3, 4)]

    assert kept == [False, False, True, True]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("rounds = 0", "rounds = -1", "continuous.rounds"),  # out of range
        ("rounds = 0", "rounds = 1.5", "continuous.rounds"),  # no whole number
        ("rounds = 0", "round = 1", "continuous"),  # unknown
        ("interval_seconds = 0.0", "interval_seconds = nan", "continuous.interval_seconds"),
        ('proxy = "tiny"', "", "proxy"),  # missing
        ('proxy = "tiny"', 'proxy = "../tiny"', "proxy"),  # another folder
        ('proxy = "tiny"', 'proxy = "tiny"\noutput = "x"', "output"),  # the service's own
        ('proxy = "tiny"', 'proxy = "tiny"\nalias = "Best one"', "alias"),  # no name
        ("seed = 5", "sede = 5", "sede"),  # unknown setting of the run
        ("[ppo]", "[ppo", "job"),  # not TOML
    ],
)
def test_a_job_that_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = write_job(tmp_path, iterations=1, rounds=0)
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(InvalidParameter) as refused:
        read_job(path)

    assert refused.value.name == named
