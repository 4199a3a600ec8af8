"""The gates: each a pure function of what was measured on a version and on that which it is to replace."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from trainer.evaluation.judgement import compare
from trainer.held_out.config import GatesConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One system on the held-out prompts, answered greedily."""

    name: str
    scores: Tensor
    """(B,) by the judge, in the order of the prompts."""

    garble_rate: float
    length: float
    """Mean tokens of an answer."""

    rejections_per_token: float
    seconds_per_token: float
    kl: float | None = None
    """To the LLM, nats per token, decisions sampled; None where nobody asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one gate saw."""

    gate: str
    value: float
    limit: float
    excess: float
    """How far `value` is on the wrong side of the limit; at most 0 when the gate is passed."""

    @property
    def is_passed(self) -> bool:
        """NaN does not pass."""
        return self.excess <= 0

    def __str__(self) -> str:
        return f"{self.gate} is {self.value:.4g}, limit {self.limit:.4g}: off by {self.excess:.4g}"


def readings(candidate: Summary, other: Summary, limits: GatesConfig) -> list[Reading]:
    """One for every gate that has a limit, in a fixed order."""
    found = []
    for name, measure in _GATES.items():
        limit = asdict(limits)[name]
        if limit is not None:
            side, _, gate = name.partition("_")
            value = measure(candidate, other)
            excess = limit - value if side == "min" else value - limit
            found.append(Reading(gate=gate, value=value, limit=limit, excess=excess))
    return found


def reward_gain(candidate: Summary, other: Summary) -> float:
    """Lower end of the paired 95 % interval of the gain, in deviations of the other's scores."""
    return compare(candidate.scores, other.scores, seed=0).gain.low


def garble_rise(candidate: Summary, other: Summary) -> float:
    """Share of garbled words above the other's."""
    return candidate.garble_rate - other.garble_rate


def length_drift(candidate: Summary, other: Summary) -> float:
    """How far the answers' mean length is from the other's, as a share of it."""
    return abs(candidate.length / other.length - 1)


def kl(candidate: Summary, other: Summary) -> float:
    """To the LLM, whatever the other's is."""
    assert candidate.kl is not None, "measured where it has a limit"
    return candidate.kl


def rejections_per_token(candidate: Summary, other: Summary) -> float:
    """Whatever the other's are."""
    return candidate.rejections_per_token


def latency_ratio(candidate: Summary, other: Summary) -> float:
    """Seconds per token over the other's."""
    return candidate.seconds_per_token / other.seconds_per_token


_GATES: Mapping[str, Callable[[Summary, Summary], float]] = {
    "min_reward_gain": reward_gain,
    "max_garble_rise": garble_rise,
    "max_length_drift": length_drift,
    "max_kl": kl,
    "max_rejections_per_token": rejections_per_token,
    "max_latency_ratio": latency_ratio,
}
"""By the name of the limit."""
