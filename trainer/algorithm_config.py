"""The settings of the algorithms, one table each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from proxy_model.errors import InvalidParameter
from proxy_model.ranges import TARGET_RETURN

Baseline = Literal["none", "leave_one_out", "mean", "group_norm"]
"""See `trainer/baselines.py`."""

AlgorithmName = Literal["ppo", "rloo", "mle", "rwr", "awr", "dt", "dpo", "value"]
RatioLevel = Literal["position", "decision"]


def require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    """Raise `InvalidParameter` unless `is_allowed`."""
    if not is_allowed:
        raise InvalidParameter(name, value, allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoConfig:
    """Proximal policy optimisation (arXiv:1707.06347) with the tricks of PPO-max (arXiv:2307.04964, section 5)."""

    learning_rate: float = 3e-4
    """Falls linearly to 0 over the planned iterations."""

    epochs: int = 4
    minibatches: int = 4
    target_kl: float = 0.02
    """The policy stops for this batch once an epoch's KL(old, new) per unit exceeds this. 0 switches it off."""

    ratio_level: RatioLevel = "position"
    """`position`: a position is one action, its log-probability the sum of its decisions'. `decision`: each alone."""

    whiten: bool = True
    """Advantages get mean 0 and deviation 1 over the batch's units; false: as they are."""

    policy_clip: float = 0.2
    value_clip: float = 0.2
    """In units of the normalised reward. 0 switches it off."""

    value_weight: float = 0.5
    entropy_weight: float = 0.0
    discount: float = 1.0
    policy_lambda: float = 0.95
    value_lambda: float = 1.0
    max_grad_norm: float = 0.5
    """Of the actor and of the critic, which share no weight, each."""

    critic_pretrain_iterations: int = 1
    """Batches of version 0 that only the critic learns from."""

    critic_pretrain_epochs: int = 10

    def __post_init__(self) -> None:
        for name in ("learning_rate", "policy_clip", "max_grad_norm"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("epochs", "minibatches", "critic_pretrain_epochs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("target_kl", "value_clip", "value_weight", "entropy_weight", "critic_pretrain_iterations"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("discount", "policy_lambda", "value_lambda"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        levels = get_args(RatioLevel)
        require(self.ratio_level in levels, "ratio_level", self.ratio_level, f"one of {levels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PtxConfig:
    """The table `ptx`: answers that PPO imitates while it learns, PPO-max's pre-training loss; see `trainer/ptx.py`."""

    data: Path
    """Folder of `proxy-rlhf replay` or `rollouts`; of the answers to one prompt the best is imitated."""

    weight: float = 0.1
    """Of the loss, minus the mean log-likelihood per unit, beside the clipped surrogate."""

    def __post_init__(self) -> None:
        require(self.weight > 0, "ptx.weight", self.weight, "above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RlooConfig:
    """REINFORCE with a leave-one-out baseline (arXiv:2402.14740)."""

    learning_rate: float = 1e-3
    epochs: int = 2
    minibatches: int = 8
    target_kl: float = 0.02
    """As in PPO: with more than one step on a batch the ratio is clipped, and this stops it. 0 switches it off."""

    policy_clip: float = 0.2
    baseline: Baseline = "leave_one_out"
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        _check_optimisation(self)
        require(self.policy_clip > 0, "policy_clip", self.policy_clip, "above 0")
        require(self.target_kl >= 0, "target_kl", self.target_kl, "at least 0")
        require(self.baseline in get_args(Baseline), "baseline", self.baseline, f"one of {get_args(Baseline)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelihoodConfig:
    """Weighted likelihood of the proxy's own answers (arXiv:2308.12050): `mle`, `rwr`, `awr`."""

    learning_rate: float = 1e-3
    epochs: int = 2
    minibatches: int = 8
    threshold: float = 0.5
    """`mle` keeps answers whose return is this many deviations above the mean, and the best of each prompt."""

    beta: float = 1.0
    """Temperature of `rwr` and `awr`: weight exp(z / beta)."""

    max_weight: float = 20.0
    """Bound on that weight, before the batch's mean weight is made 1."""

    value_weight: float = 0.5
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        _check_optimisation(self)
        for name in ("beta", "max_weight"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require(self.value_weight >= 0, "value_weight", self.value_weight, "at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DtConfig:
    """Likelihood given the answer's return (arXiv:2308.12050): `dt`, whose proxies are conditioned on a return."""

    learning_rate: float = 1e-3
    epochs: int = 2
    minibatches: int = 8
    untold_share: float = 0.1
    """Answers of an epoch that are learnt from without their return."""

    untold_iterations: int = 1
    """Iterations, from the first, whose answers are not told what to aim at."""

    default_target_return: float = 1.5
    """What the published proxy aims at where a request does not say, in deviations."""

    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        _check_optimisation(self)
        require(0 <= self.untold_share < 1, "untold_share", self.untold_share, "in [0, 1)")
        require(self.untold_iterations >= 0, "untold_iterations", self.untold_iterations, "at least 0")
        TARGET_RETURN.check("default_target_return", self.default_target_return)


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoConfig:
    """Direct preference optimisation (arXiv:2305.18290) on pairs of a folder: `dpo`."""

    learning_rate: float = 1e-3
    epochs: int = 2
    minibatches: int = 8
    beta: float = 5.0
    """How far the two answers' log-ratios are pulled apart: the larger, the sooner a pair is content."""

    per_position: bool = True
    """An answer's log-ratio is the mean over its free positions; false: the sum, with a beta of .05 to .3."""

    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        _check_optimisation(self)
        require(self.beta > 0, "beta", self.beta, "above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueConfig:
    """Accept what is expected to end well: `value`, see `trainer/algorithms/value.py`."""

    learning_rate: float = 1e-3
    epochs: int = 2
    minibatches: int = 8
    margin: float = 0.0
    """A candidate is accepted if the return that it promises is at most this much below what the position promises."""

    temperature: float = 0.1
    """Return per unit of the actor's logit, in the units of the normalised reward."""

    value_weight: float = 0.5
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        _check_optimisation(self)
        require(self.margin >= 0, "margin", self.margin, "at least 0")
        require(self.temperature > 0, "temperature", self.temperature, "above 0")
        require(self.value_weight >= 0, "value_weight", self.value_weight, "at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineConfig:
    """How a run learns from a folder of answers, in place of answering prompts."""

    epochs: int = 4
    """Passes over the folder where `num_prompts` does not say how many prompts' answers to learn from."""

    rejections_per_token: float = 0.0
    """Published versions get their acceptance shifted until their own greedy answers to prompts of the folder have
    about this many; 0: as it was learnt."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        wanted = self.rejections_per_token
        require(0 <= wanted < 1, "rejections_per_token", wanted, "in [0, 1)")


def _check_optimisation(config: RlooConfig | LikelihoodConfig | DtConfig | DpoConfig | ValueConfig) -> None:
    for name in ("learning_rate", "max_grad_norm"):
        require(getattr(config, name) > 0, name, getattr(config, name), "above 0")
    for name in ("epochs", "minibatches"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
