"""Settings of the held-out judge, of the gates and of early stopping. All raise `InvalidParameter`."""

from dataclasses import dataclass
from pathlib import Path

from trainer.algorithm_config import require

MIN_GATED_PROMPTS = 10
"""On fewer prompts that fit no gates are asked: an interval over one or two answers says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutConfig:
    """The table `held_out`."""

    prompts: Path
    """Prompts that the run is not trained on."""

    judge: Path | None = None
    """Folder of a reward model that shares nothing with the training one; None: that one alone scores the answers."""

    num_prompts: int = 64
    """The first ones of a shuffle that fit; 0: all."""

    max_tokens: int = 64
    """Length at which an answer is cut, in tokens."""

    def __post_init__(self) -> None:
        require(self.num_prompts >= 0, "held_out.num_prompts", self.num_prompts, "at least 0")
        require(self.max_tokens >= 1, "held_out.max_tokens", self.max_tokens, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatesConfig:
    """The table `gates`: what a version must keep to, against the stable one, or the LLM alone where there is none.

    A limit that is left out is not asked.
    """

    min_reward_gain: float | None = None
    """For the lower end of the 95 % interval of the judge's gain, in deviations of the other's scores."""

    max_garble_rise: float | None = None
    """Garbled words, as a share of all words, above the other's."""

    max_length_drift: float | None = None
    """|mean tokens of an answer / the other's - 1|."""

    max_kl: float | None = None
    """KL from the sampled proxy to the LLM, nats per token."""

    max_rejections_per_token: float | None = None
    max_latency_ratio: float | None = None
    """Seconds per token / the other's, in the same process. A busy machine needs slack: 1.5."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            limit = getattr(self, name)
            is_allowed = limit is None or name == "min_reward_gain" or limit >= 0
            require(is_allowed, f"gates.{name}", limit, "at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStoppingConfig:
    """The table `early_stopping`: the run ends once the held-out judge has liked it less for a while."""

    every: int = 5
    """Iterations between two looks."""

    patience: int = 3
    """Looks in a row without a better score than the best before the run is ended."""

    min_gain: float = 0.0
    """By how much a score must be above the best to count, in the judge's units."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "early_stopping.every", self.every, "at least 1")
        require(self.patience >= 1, "early_stopping.patience", self.patience, "at least 1")
        require(self.min_gain >= 0, "early_stopping.min_gain", self.min_gain, "at least 0")
