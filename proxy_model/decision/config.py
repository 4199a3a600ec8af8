"""What the numbers of the method mean and which values they may take."""

from dataclasses import dataclass
from typing import Literal

from proxy_model.errors import InvalidParameter
from proxy_model.ranges import P_T, SKAM_TEMPERATURE, TARGET_RETURN, TOP_P

FeatureMode = Literal["prefix", "candidate", "both"]
Normalisation = Literal["raw", "renormalised"]

NUM_SCALARS = 4
"""Scalar features per candidate: rank, log-probability, gap to the first candidate, mass left (see `features`)."""

NUM_TARGET_SCALARS = 2
"""What a conditioned actor reads besides: the target return, and whether one is given."""

NOT_CONDITIONED = "absent: this proxy is not conditioned on a return"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkamConfig:
    """How far the proxy may steer the frozen LLM at one position (arXiv:2403.04283, section 2.2)."""

    p_t: float = 0.005
    """Reject is masked once the mean probability of the remaining candidates is at most this. 0: never."""

    top_p: float = 0.9
    """Probability mass that the slate is drawn from, in (0, 1]. 1 switches the nucleus filter off."""

    temperature: float = 1.0
    """Softmax temperature under which the candidates' probabilities are taken, above 0."""

    max_candidates: int = 16
    """Length K of a slate; the K-th candidate is always accepted."""

    normalisation: Normalisation = "raw"
    """`raw`: probabilities stay as the softmax gave them. `renormalised`: over what remains of the slate."""

    def __post_init__(self) -> None:
        P_T.check("p_t", self.p_t)
        TOP_P.check("top_p", self.top_p)
        SKAM_TEMPERATURE.check("temperature", self.temperature)
        if not 1 <= self.max_candidates <= 256:
            raise InvalidParameter("max_candidates", self.max_candidates, "in [1, 256]")
        if self.normalisation not in ("raw", "renormalised"):
            raise InvalidParameter("normalisation", self.normalisation, "'raw' or 'renormalised'")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """The shape of a proxy: two 2-layer MLPs, one that accepts or rejects (actor), one that values (critic)."""

    llm_hidden_size: int
    """Width D of the frozen LLM's hidden states."""

    features: FeatureMode = "prefix"
    """`prefix`: h(prefix) and the candidate's embedding. `candidate`: h(prefix + candidate). `both`: both states."""

    hidden_size: int = 256
    """Width of the MLPs' hidden layer."""

    initial_acceptance: float = 0.8
    """Acceptance probability q0 of version 0, above one half so that greedy decisions reproduce the plain LLM."""

    is_conditioned: bool = False
    """The actor is told which return to aim at, or that none is given: a dial that each request can turn."""

    default_target_return: float = 1.5
    """What a conditioned proxy is told where a request does not say, in standard deviations of the reward."""

    def __post_init__(self) -> None:
        if self.features not in ("prefix", "candidate", "both"):
            raise InvalidParameter("features", self.features, "'prefix', 'candidate' or 'both'")
        if self.llm_hidden_size < 1:
            raise InvalidParameter("llm_hidden_size", self.llm_hidden_size, "at least 1")
        if not 1 <= self.hidden_size <= 65536:
            raise InvalidParameter("hidden_size", self.hidden_size, "in [1, 65536]")
        if not 0.5 < self.initial_acceptance < 1.0:
            raise InvalidParameter("initial_acceptance", self.initial_acceptance, "in (0.5, 1)")
        TARGET_RETURN.check("default_target_return", self.default_target_return)

    def target_return(self, asked: float | None) -> float | None:
        """What the proxy is told when `asked` is wanted: that, its default, or None where it is not conditioned.

        Raises `InvalidParameter` where something is asked of a proxy that is not conditioned.
        """
        if self.is_conditioned:
            return self.default_target_return if asked is None else asked
        if asked is not None:
            raise InvalidParameter("target_return", asked, NOT_CONDITIONED)
        return None
