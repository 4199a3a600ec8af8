"""What a job's version must keep to before an alias may name it, as its order says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from proxy_model.errors import InvalidParameter
from store.fine_tuning.require import require
from store.fine_tuning.reward_models import judge_folders

LIMITS = (
    "min_reward_gain",
    "max_garble_rise",
    "max_length_drift",
    "max_kl",
    "max_rejections_per_token",
    "max_latency_ratio",
)
_HIGHEST = 1e3
_MOST = {"num_prompts": 1000, "max_tokens": 4096}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What is asked of the answers to the validation file's prompts.

    The limits are against the stable version and mean what they do in the table `gates` of a run; None is not asked.
    """

    judge: str | None = None
    """Name of the reward model that judges, `judges/<name>` for one that trains nothing; None: the method's grader
    alone scores the answers, and there are no limits."""

    num_prompts: int = 64
    max_tokens: int = 64
    """Length at which an answer is cut, in tokens."""

    min_reward_gain: float | None = None
    max_garble_rise: float | None = None
    max_length_drift: float | None = None
    max_kl: float | None = None
    max_rejections_per_token: float | None = None
    max_latency_ratio: float | None = None

    def __post_init__(self) -> None:
        require(self.judge is None or isinstance(self.judge, str), "judge", self.judge, "the name of a reward model")
        for name, most in _MOST.items():
            value = getattr(self, name)
            require(type(value) is int and 1 <= value <= most, name, value, f"a whole number in [1, {most}]")
        for name in LIMITS:
            value, low = getattr(self, name), -_HIGHEST if name.startswith("min") else 0
            is_number = type(value) in (int, float) and low <= value <= _HIGHEST
            require(value is None or is_number, name, value, f"a number in [{low:g}, {_HIGHEST:g}]")
        require(self.judge is not None or not self.limits, "judge", None, "the name of a reward model, to have limits")

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """From JSON. Raises `InvalidParameter` with the dotted name below `gates`."""
        names = [each.name for each in fields(cls)]
        for name in value:
            require(name in names, f"gates.{name}", value[name], f"left out; gates have {names}")
        try:
            return cls(**value)
        except InvalidParameter as error:
            raise InvalidParameter(f"gates.{error.name}", error.value, error.allowed) from error

    @property
    def limits(self) -> dict[str, float]:
        """Those that are asked."""
        return {name: limit for name in LIMITS if (limit := getattr(self, name)) is not None}

    def judge_folder(self, home: Path) -> Path | None:
        """Where the judge lies, if one is asked. Raises `InvalidParameter` where there is none of that name."""
        if self.judge is None:
            return None
        folders = judge_folders(home)
        require(self.judge in folders, "gates.judge", self.judge, f"one of {sorted(folders)}")
        return folders[self.judge]

    def to_json(self) -> dict[str, Any]:
        """What was given, and the defaults."""
        return {name: value for name, value in asdict(self).items() if value is not None}
