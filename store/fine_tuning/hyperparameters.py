"""How a job trains: OpenAI's hyperparameters and ours, with their ranges. None is OpenAI's `auto`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args

from proxy_model.errors import InvalidParameter
from store.fine_tuning.require import require

Algorithm = Literal["ppo", "rloo", "mle", "rwr", "awr", "dt"]

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both allowed."""

    low: float
    high: float
    is_whole: bool = True

    def __str__(self) -> str:
        return f"'auto' or a {'whole ' if self.is_whole else ''}number in [{self.low:g}, {self.high:g}]"

    def holds(self, value: object) -> bool:
        """Whether `value` is such a number."""
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else int | float):
            return False
        return self.low <= value <= self.high


RANGES: Mapping[str, Range] = {
    "n_epochs": Range(1, 50),
    "batch_size": Range(2, 4096),
    "learning_rate_multiplier": Range(1e-3, 1e3, is_whole=False),
    "responses_per_prompt": Range(1, 64),
    "num_prompts": Range(1, 1_000_000),
    "max_tokens": Range(1, 4096),
    "max_prompt_tokens": Range(1, 4096),
    "checkpoint_interval": Range(1, 100_000),
    "p_t": Range(0, 1, is_whole=False),
    "top_p": Range(0.01, 1, is_whole=False),
    "penalty_weight": Range(0, 100, is_whole=False),
    "beta": Range(1e-3, 1e3, is_whole=False),
    "rejections_per_token": Range(0, 0.9, is_whole=False),
}
"""Of every hyperparameter that is a number."""

_ONLY_AUTO: Mapping[str, tuple[str, ...]] = {
    "compute_multiplier": (AUTO,),
    "eval_interval": (AUTO,),
    "eval_samples": (AUTO,),
    "reasoning_effort": ("default",),
}
"""OpenAI's that mean nothing here: their defaults are taken, other values refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What every method lets one choose; None leaves the choice to the trainer."""

    n_epochs: int | None = None
    """How often each row is learnt from, or answered, in all."""

    batch_size: int | None = None
    """Rows of one iteration."""

    learning_rate_multiplier: float | None = None
    """Of the algorithm's own learning rate."""

    max_tokens: int | None = None
    """Length at which answers are cut."""

    max_prompt_tokens: int | None = None
    """Rows with longer prompts are left out."""

    checkpoint_interval: int | None = None
    """Iterations between two published versions. None: only the last one is published."""

    p_t: float | None = None
    """Reject is masked once the mean probability of the remaining candidates is at most this."""

    top_p: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in RANGES:
                require(value is None or RANGES[each.name].holds(value), each.name, value, str(RANGES[each.name]))

    @classmethod
    def parse(cls, value: object, parameter: str) -> Self:
        """From JSON, `auto` as OpenAI has it. Raises `InvalidParameter` with the dotted name below `parameter`."""
        require(isinstance(value, Mapping), parameter, value, "an object of hyperparameters")
        assert isinstance(value, Mapping)
        names = [each.name for each in fields(cls)]
        given: dict[str, Any] = {}
        for name, one in value.items():
            if name in _ONLY_AUTO:
                allowed = _ONLY_AUTO[name]
                require(one is None or one in allowed, f"{parameter}.{name}", one, f"one of {allowed}")
                continue
            require(name in names, f"{parameter}.{name}", one, f"left out; hyperparameters are {names}")
            if one is not None and one != AUTO:
                given[name] = one
        try:
            return cls(**given)
        except InvalidParameter as error:
            raise InvalidParameter(f"{parameter}.{error.name}", error.value, error.allowed) from error

    def to_json(self) -> dict[str, Any]:
        """As callers see them: OpenAI's three always, the others where they were given."""
        plain = {name: value for name, value in asdict(self).items() if value is not None}
        return dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), AUTO) | plain


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedHyperparameters(Hyperparameters):
    """Of `supervised`: the likelihood of answers that are given."""

    algorithm: ClassVar[str] = "mle"

    rejections_per_token: float | None = None
    """About as many has the published version in its greedy answers to prompts of the file; 0: as it was learnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoHyperparameters(SupervisedHyperparameters):
    """Of `dpo`: one answer of a pair over the other."""

    algorithm: ClassVar[str] = "dpo"

    beta: float | None = None
    """How far the two answers are pulled apart; per position, so some ten times what whole LLMs are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforcementHyperparameters(Hyperparameters):
    """Of `reinforcement`: answers of the proxy's own, and a grader."""

    algorithm: Algorithm = "ppo"
    responses_per_prompt: int | None = None
    num_prompts: int | None = None
    """Prompts to answer in all, in place of `n_epochs`."""

    penalty_weight: float | None = None
    """eta, of the gap penalty."""

    beta: float | None = None
    """Temperature of `rwr` and `awr`."""

    def __post_init__(self) -> None:
        Hyperparameters.__post_init__(self)
        algorithms = get_args(Algorithm)
        require(self.algorithm in algorithms, "algorithm", self.algorithm, f"one of {algorithms}")
        both = self.num_prompts is not None and self.n_epochs is not None
        require(not both, "num_prompts", self.num_prompts, "left out where `n_epochs` is given")
        is_weighted = self.algorithm in ("rwr", "awr")
        require(self.beta is None or is_weighted, "beta", self.beta, "left out unless `algorithm` is rwr or awr")
        is_single = self.algorithm == "rloo" and self.responses_per_prompt == 1
        require(not is_single, "responses_per_prompt", self.responses_per_prompt, "at least 2 for rloo")
