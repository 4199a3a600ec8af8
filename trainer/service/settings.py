"""Everything that an operator can set: the one file of the trainer's service that reads the environment.

`PROXY_RLHF_TRAINER_<NAME>` sets the field `<name>` of `Settings`, those in `SHARED` are the server's; a flag wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from proxy_model.environment import values_in
from proxy_model.errors import InvalidParameter
from proxy_model.paths import home_folder
from store.database import database_url, parse_url

PREFIX = "PROXY_RLHF_TRAINER_"
SHARED = {
    "home": "PROXY_RLHF_HOME",
    "store": "PROXY_RLHF_STORE",
    "store_url": "PROXY_RLHF_STORE_URL",
    "store_days": "PROXY_RLHF_STORE_DAYS",
    "admin_key": "PROXY_RLHF_ADMIN_KEY",
}
"""Fields that are set by the server's variables: the two meet there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One trainer process. Raises `InvalidParameter` for what cannot work."""

    host: str = "127.0.0.1"
    """Whoever reaches it can read the training metrics and nothing else."""

    port: int = 8001
    """0 takes any free port."""

    home: Path = field(default_factory=home_folder)
    """The folder of all data: published proxies, converted LLMs, the runs."""

    job: Path | None = None
    """Settings of a proxy to keep improving, see `continuous`. None: there is nothing to do, and that is fine."""

    feedback: Path | None = None
    """Settings of a proxy that learns from the store's feedback, see `feedback_job`. None: none does."""

    store: bool = True
    """Whether fine-tuning jobs are done at all. As the server's setting, with the same variable."""

    store_url: str | None = field(default=None, repr=False)
    """Where the jobs are; as the server's setting, with the same variable. None: `store.sqlite3` under `home`."""

    store_days: float = 30.0
    """Feedback on older answers is not learned from; 0: on any. As the server's setting, with the same variable."""

    lease_seconds: float = 30.0
    """A job whose trainer has not been heard of for so long is taken over by another one."""

    judge_url: str | None = None
    """OpenAI-compatible endpoint, up to and with `/v1`, for jobs whose grader is a `score_model`; the key is in
    PROXY_RLHF_JUDGE_KEY. None: such jobs fail."""

    threads: int = 1
    """Processor threads that training computes with, so that a server on the same machine keeps the others."""

    nice: int = 10
    """How far training stands back where processor time is short, 0 (not at all) to 19."""

    server_metrics: str | None = None
    """`/metrics` of a server on the same machine, for which training stands back while it has answers to give."""

    busy_share: float = 0.1
    """Share of the time that training then works: the server loses no more of its speed. 1: all. Training beside a busy
    server gets on faster with `nice` 0 than with the default, and is over sooner."""

    admin_key: str | None = field(default=None, repr=False)
    """Opens the server's `/metrics` where that wants a key. As the server's setting, with the same variable."""

    stop_seconds: float = 20.0
    """How long the iteration that SIGTERM finds may take to end; past that it is dropped, and done again later."""

    log_level: str = "info"

    def __post_init__(self) -> None:
        _require(0 <= self.port <= 65535, "port", self.port, "in [0, 65535]")
        _require(self.job is None or self.job.is_file(), "job", str(self.job), "a file that exists")
        is_usable = self.feedback is None or (self.store and self.feedback.is_file())
        _require(is_usable, "feedback", str(self.feedback), "a file that exists, and the store on")
        _require(self.store_days >= 0, "store_days", self.store_days, "at least 0")
        _require(self.lease_seconds > 0, "lease_seconds", self.lease_seconds, "above 0")
        if self.store_database is not None:
            parse_url(self.store_database)
        _require(self.threads >= 1, "threads", self.threads, "at least 1")
        _require(0 <= self.nice <= 19, "nice", self.nice, "in [0, 19]")
        is_address = self.server_metrics is None or self.server_metrics.startswith(("http://", "https://"))
        _require(is_address, "server_metrics", self.server_metrics, "an address with http:// or https://")
        _require(0 < self.busy_share <= 1, "busy_share", self.busy_share, "in (0, 1]")
        _require(self.stop_seconds >= 0, "stop_seconds", self.stop_seconds, "at least 0")
        levels = ("debug", "info", "warning", "error")
        _require(self.log_level in levels, "log_level", self.log_level, f"one of {levels}")

    @property
    def store_database(self) -> str | None:
        """The URL of the store; None when it is off."""
        return database_url(self.store_url, self.home) if self.store else None


def load_settings(environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settings from the environment and from `flags` (None where not given). Raises `InvalidParameter`."""
    kinds = get_type_hints(Settings)
    variables = {name: f"{PREFIX}{name.upper()}" for name in kinds} | SHARED
    _refuse_unknown(environment, set(variables.values()))
    given = {name: value for name, value in flags.items() if value is not None}
    return Settings(**(values_in(environment, variables, kinds) | given))


def _require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    if not is_allowed:
        raise InvalidParameter(name, value, allowed)


def _refuse_unknown(environment: Mapping[str, str], known: set[str]) -> None:
    """The prefix is this service's own, so a variable that it does not know is a misspelled one."""
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            raise InvalidParameter(name, "***", f"one of {sorted(known)}")
