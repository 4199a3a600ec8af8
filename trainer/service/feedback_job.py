"""Learn from feedback on a schedule: the reward model in use first, then the proxy from its stable version.

A job is a file of run settings without `output`, `registry` and `start`, and a table `feedback`:

    proxy = "helpful"
    prompts = "prompts.jsonl"
    alias = "canary"             # what a version is called that has passed its gates; stable if it is left out
    [feedback]
    reward = "rewards/helpful"   # the reward model in use before the first round
    min_new = 50                 # preference pairs that no round has learned from yet
    interval_seconds = 86400     # from the end of a round to the start of the next, at least
    [held_out]
    prompts = "held_out.jsonl"
    judge = "judges/helpful"
    [gates]
    min_reward_gain = -0.1

The updated reward model is one more term of the run's reward, called `feedback`; `[[rewards]]` may add others. A round
learns from all feedback that may be trained on at its start, and `trainer.feedback` says what it keeps.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proxy_model import disk
from proxy_model.errors import InvalidParameter, UnknownProxy
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.paths import feedback_root, proxies_root
from proxy_model.versions.registry import ProxyRegistry
from store.completions import Completions
from store.database import Database
from store.training import preferred_answers, rated_answers, usable_feedback
from trainer.config import TrainConfig
from trainer.config_file import config_from_mapping
from trainer.feedback.pairs import Supply, preference_pairs
from trainer.feedback.reward import MIN_PAIRS, update_reward
from trainer.feedback.rounds import Round, begin_round, known_feedback, reward_in_use
from trainer.lock import sole_trainer
from trainer.preferences import PreferencePair
from trainer.rewards.training_config import DEFAULT_L2, RewardTrainingConfig
from trainer.rounds import finished_at, is_done, last_round, read_settings, schedule_of
from trainer.saved_settings import SETTINGS_FILE, read_saved_config
from trainer.service.work import Work
from trainer.state import STATE_FILE

LOOK_SECONDS = 10.0
"""Between two looks into the store."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackSchedule:
    """The table `feedback`. Raises `InvalidParameter`."""

    reward: str
    """Folder of a head on the LLM's states."""

    min_new: int = 50
    interval_seconds: float = 86_400.0
    l2: tuple[float, ...] = DEFAULT_L2
    """How strongly the weights are drawn towards those in use; the best of these by cross-validation."""

    length_control: float | None = None
    """Share in [0, 1] of the new head's slope on log(length) that is taken out; None: all of it."""

    weight: float = 1.0
    """Of the reward model among the run's terms."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "l2", tuple(self.l2))
        for name, least in (("min_new", 1), ("interval_seconds", 0)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not value >= least:
                raise InvalidParameter(f"feedback.{name}", value, f"a number, at least {least}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackSettings:
    """A job file."""

    schedule: FeedbackSchedule
    settings: Mapping[str, Any]

    @property
    def proxy(self) -> str:
        return str(self.settings["proxy"])

    def config_of(self, made: Round, home: Path, start: Path | None) -> TrainConfig:
        """The run of a round, from the weights in `start`. Raises `InvalidParameter`."""
        term = {"type": "trained", "name": "feedback", "folder": str(made.reward), "weight": self.schedule.weight}
        own: dict[str, Any] = {"output": str(made.run), "registry": str(proxies_root(home))}
        own["rewards"] = [term, *self.settings.get("rewards", [])]
        own["start"] = None if start is None else str(start)
        return config_from_mapping({**self.settings, **own})


def read_feedback_job(path: Path) -> FeedbackSettings:
    """Read and check a job file. Raises `InvalidParameter`, `OSError`."""
    settings = read_settings(path)
    if "start" in settings:
        raise InvalidParameter("start", settings["start"], "left out: a round starts from the stable version")
    job = FeedbackSettings(schedule=schedule_of(settings, "feedback", FeedbackSchedule), settings=settings)
    job.config_of(Round(Path()), Path(), None)
    return job


class FeedbackJob:
    """A source of work that has some when enough was said; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        path: Path,
        home: Path,
        database: Database,
        days: float | None,
        clock: Callable[[], float] = time.time,
        load: Callable[[str], FrozenLLM] = load_llm,
        on_supply: Callable[[str, Supply], None] = lambda proxy, supply: None,
    ) -> None:
        self._path = path
        self._home = home
        self._database = database
        self._kept = Completions(database, days)
        self._clock = clock
        self._load = load
        self._on_supply = on_supply
        self._next_look = 0.0
        self._told: Supply | None = None

    def next_work(self) -> Work | None:
        """The round that is under way, or a new one once enough feedback and time have come together.

        Raises `InvalidParameter`, `OSError`, `StoreUnavailable`, `BadCheckpoint`, and `OutputTaken` where another
        trainer is at it.
        """
        job = read_feedback_job(self._path)
        root = feedback_root(self._home) / job.proxy
        with sole_trainer(root):
            number = last_round(root)
            current = Round(root / str(number))
            if number and not is_done(current.folder):
                return self._go_on(job, current)
            is_due = not number or self._clock() >= finished_at(current.folder) + job.schedule.interval_seconds
            found = self._begin(job, root) if is_due and self._clock() >= self._next_look else None
            return None if found is None else self._go_on(job, found)

    def finish(self, work: Work) -> None:
        """Mark the round as complete, on the disk."""
        Round(work.config.output.parent).finish(self._clock())

    def _begin(self, job: FeedbackSettings, root: Path) -> Round | None:
        """A new round if enough was said since the last one."""
        self._next_look = self._clock() + LOOK_SECONDS
        usable, known = usable_feedback(self._database, self._kept), known_feedback(root)
        pairs = self._pairs(usable) if usable - known else []
        supply = Supply.of(usable, pairs, self._pairs(usable & known) if pairs and known else [])
        self._on_supply(job.proxy, supply)
        if supply.new_pairs >= job.schedule.min_new and len(pairs) >= MIN_PAIRS:
            return begin_round(root, usable)
        self._tell(job, supply)
        return None

    def _tell(self, job: FeedbackSettings, supply: Supply) -> None:
        """Once for every change."""
        if supply != self._told:
            told = {"proxy": job.proxy, "needed": max(job.schedule.min_new, MIN_PAIRS), **asdict(supply)}
            logger.info("too few preference pairs for a round", extra=told)
        self._told = supply

    def _go_on(self, job: FeedbackSettings, current: Round) -> Work | None:
        """A run that was killed before its first state was saved has done nothing yet; a reward is whole or not."""
        if (current.run / STATE_FILE).exists():
            return Work(config=read_saved_config(current.run / SETTINGS_FILE, output=current.run), is_resumed=True)
        with sole_trainer(current.run):
            disk.remove(current.run)
        registry = ProxyRegistry(proxies_root(self._home))
        if not current.reward.is_dir() and not self._update_reward(job, current, registry):
            logger.warning("too little is left of a round's feedback", extra={"proxy": job.proxy})
            current.finish(self._clock())
            return None
        return Work(config=job.config_of(current, self._home, _stable(registry, job.proxy)), is_resumed=False)

    def _update_reward(self, job: FeedbackSettings, current: Round, registry: ProxyRegistry) -> bool:
        """Whether enough of the round's feedback is still there to learn from."""
        pairs = self._pairs(current.feedback)
        if len(pairs) < MIN_PAIRS:
            return False
        run = job.config_of(current, self._home, None)
        config = RewardTrainingConfig(
            output=current.reward,
            train=(Path(),),
            model=run.model,
            start=reward_in_use(current.folder.parent, registry, job.proxy, Path(job.schedule.reward)),
            l2=job.schedule.l2,
            length_control=job.schedule.length_control,
            seed=run.seed,
        )
        accuracy = update_reward(config, pairs, self._load(run.model))
        told = {"proxy": job.proxy, "round": current.folder.name, "pairs": len(pairs), "cross_validated": accuracy}
        logger.info("a reward model has learned from feedback", extra=told)
        return True

    def _pairs(self, ids: frozenset[str]) -> list[PreferencePair]:
        """What the store says now of the feedback `ids`; what is gone is left out."""
        rated = (each for each in rated_answers(self._database, self._kept) if each.feedback_id in ids)
        preferred = (each for each in preferred_answers(self._database, self._kept) if each.feedback_id in ids)
        return preference_pairs(rated, preferred)


def _stable(registry: ProxyRegistry, proxy: str) -> Path | None:
    try:
        return registry.path(registry.resolve(proxy))
    except UnknownProxy:
        return None
