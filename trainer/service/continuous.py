"""Keep improving one proxy: rounds of training, each of which starts from the weights that the last one ended with.

    <home>/training/<proxy>/<round>/            a run as `trainer.loop` keeps it
    <home>/training/<proxy>/<round>/done.json   when it was complete; written last

A job is a file of run settings without `output` and `registry`, and a table `continuous`:

    proxy = "calm"
    prompts = "prompts.jsonl"
    rewards = [{ type = "trained", folder = "reward-model" }]
    alias = "canary"             # what each round's versions are called; stable if it is left out
    start = "proxies/calm/3"     # what the first round starts from; new weights if it is left out
    [continuous]
    interval_seconds = 3600      # from the end of a round to the start of the next
    rounds = 0                   # 0: for ever

Round n draws its random numbers from `seed` + n - 1. The file is read again before each round; a round that has begun
ends under the settings that it began with. Paths are relative to the working directory, as for `proxy-rlhf train`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_model import disk
from proxy_model.errors import InvalidParameter
from proxy_model.paths import proxies_root, training_root
from trainer.config import TrainConfig
from trainer.config_file import config_from_mapping
from trainer.lock import sole_trainer
from trainer.rounds import finished_at, is_done, last_round, mark_done, read_settings, schedule_of
from trainer.saved_settings import SETTINGS_FILE, read_saved_config
from trainer.service.work import Work
from trainer.state import STATE_FILE

_NUM_KEPT_STATES = 2
"""Rounds whose full state is kept: the current one's, and that which it started from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When rounds are done. Raises `InvalidParameter`."""

    interval_seconds: float = 3600.0
    rounds: int = 0

    def __post_init__(self) -> None:
        for name, kinds in (("interval_seconds", (int, float)), ("rounds", (int,))):
            value = getattr(self, name)
            if type(value) not in kinds or not value >= 0:
                raise InvalidParameter(f"continuous.{name}", value, "a number, at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job file: the schedule, and the settings that every round shares."""

    schedule: Schedule
    settings: Mapping[str, Any]

    def config_of(self, number: int, home: Path) -> TrainConfig:
        """The run of round `number`, counted from 1. Raises `InvalidParameter`."""
        folder = round_folder(home, str(self.settings["proxy"]), number)
        own = {"output": str(folder), "registry": str(proxies_root(home))}
        own["seed"] = self.settings.get("seed", 0) + number - 1
        if number > 1:
            own["start"] = str(folder.with_name(str(number - 1)))
        return config_from_mapping({**self.settings, **own})


def read_job(path: Path) -> Job:
    """Read and check a job file. Raises `InvalidParameter`, `OSError`."""
    settings = read_settings(path)
    schedule = schedule_of(settings, "continuous", Schedule)
    config_from_mapping({**settings, "output": "", "registry": ""})
    return Job(schedule=schedule, settings=settings)


def round_folder(home: Path, proxy: str, number: int) -> Path:
    """Where round `number` of `proxy` lies."""
    return training_root(home) / proxy / str(number)


class ContinuousJob:
    """A source of work without end, or of so many rounds; `clock` gives seconds since the epoch."""

    def __init__(self, path: Path, home: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._home = home
        self._clock = clock

    def next_work(self) -> Work | None:
        """The round that is under way, or the next one once it is time.

        Raises `InvalidParameter`, `OSError`, and `OutputTaken` where another trainer is in the middle of its start.
        """
        job = read_job(self._path)
        number = last_round(training_root(self._home) / str(job.settings["proxy"]))
        if number == 0:
            return self._begin(job, 1)
        folder = round_folder(self._home, str(job.settings["proxy"]), number)
        if not is_done(folder):
            return self._go_on(job, number, folder)
        return self._begin(job, number + 1) if self._is_due(job.schedule, number, folder) else None

    def finish(self, work: Work) -> None:
        """Mark the round as complete, on the disk."""
        mark_done(work.config.output, self._clock())

    def _go_on(self, job: Job, number: int, folder: Path) -> Work:
        """A round that was killed before its first state was saved has done nothing yet."""
        if not (folder / STATE_FILE).exists():
            with sole_trainer(folder):
                disk.remove(folder)
            return self._begin(job, number)
        return Work(config=read_saved_config(folder / SETTINGS_FILE, output=folder), is_resumed=True)

    def _is_due(self, schedule: Schedule, number: int, folder: Path) -> bool:
        if schedule.rounds and number >= schedule.rounds:
            return False
        return self._clock() >= finished_at(folder) + schedule.interval_seconds

    def _begin(self, job: Job, number: int) -> Work:
        config = job.config_of(number, self._home)
        (config.output.with_name(str(number - _NUM_KEPT_STATES)) / STATE_FILE).unlink(missing_ok=True)
        return Work(config=config, is_resumed=False)
