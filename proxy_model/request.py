"""What goes into the engine and what comes out."""

import builtins
from dataclasses import dataclass, field
from typing import Literal

from proxy_model.bank import ProxyRef
from proxy_model.errors import InvalidParameter
from proxy_model.trajectory import Trajectory

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one answer is decoded."""

    max_tokens: int
    """0: the prompt is only read."""

    temperature: float = 0.0
    """0: the paper's order, descending probability. Above: candidates come in an order drawn at this temperature."""

    top_p: float = 1.0
    """Narrows the slate (with a proxy) or is the nucleus (without); never widens."""

    seed: int | None = None
    """Same seed, same answer, whatever else is in the batch. None: drawn by the engine."""

    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    """No end token before this many."""

    top_logprobs: int | None = None
    """None: no log-probabilities. n: those of the chosen token and of the n likeliest, 0..20."""

    prompt_logprobs: int | None = None
    """The same for the tokens of the prompt, on the first delta."""

    p_t: float | None = None
    skam_temperature: float | None = None
    skam_top_p: float | None = None
    """SKAM's settings; None is what the proxy was trained with."""

    decision: Literal["greedy", "sample"] = "greedy"
    return_decisions: bool = False

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens, 0, 1 << 31)
        _check("temperature", self.temperature, 0.0, 2.0)
        _check("min_tokens", self.min_tokens, 0, self.max_tokens)
        for name, number in (("top_logprobs", self.top_logprobs), ("prompt_logprobs", self.prompt_logprobs)):
            if number is not None:
                _check(name, number, 0, 20)
        if self.p_t is not None:
            _check("p_t", self.p_t, 0.0, 1.0)
        for name, value in (("top_p", self.top_p), ("skam_top_p", self.skam_top_p)):
            if value is not None and not 0.0 < value <= 1.0:
                raise InvalidParameter(name, value, "in (0, 1]")
        if self.skam_temperature is not None and not 0.0 < self.skam_temperature <= 100.0:
            raise InvalidParameter("skam_temperature", self.skam_temperature, "in (0, 100]")
        if self.seed is not None:
            _check("seed", self.seed, -(1 << 63), (1 << 63) - 1)


def _check(name: str, value: int | float, low: int | float, high: int | float) -> None:
    if not low <= value <= high:
        raise InvalidParameter(name, value, f"in [{low}, {high}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One answer to be generated."""

    id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    proxy: ProxyRef | None = None
    """None: the LLM alone."""

    record: bool = False
    """Keep every decision and its features; the last delta carries them as a `Trajectory`."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability under the LLM at temperature 1, before the proxy."""

    token_id: int
    text: str
    bytes: bytes
    logprob: float
    top: tuple[tuple[int, str, "builtins.bytes", float], ...] = ()
    """The likeliest tokens: (id, text, bytes, logprob)."""


@dataclass(frozen=True, slots=True)
class CandidateDecision:
    """One candidate of a position, in the order offered."""

    token_id: int
    text: str
    bytes: bytes
    """Empty for a token that stands for no text, like an end token."""

    prob: float
    """Under the LLM and SKAM's temperature, not renormalised."""

    accept_prob: float | None
    """The proxy's acceptance probability; None where it was not asked."""

    is_free: bool
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class PositionDecisions:
    """The candidates that were seen at one position, the accepted one last."""

    candidates: tuple[CandidateDecision, ...]

    @property
    def accepted(self) -> CandidateDecision:
        """The candidate that became the token."""
        return self.candidates[-1]


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of one answer."""

    prompt_tokens: int
    completion_tokens: int
    rejected: int
    forced: int
    passes: int
    """LLM passes of this sequence after its prompt, its first token's included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one step yields for one request."""

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """On the first delta, if asked for: of the prompt's tokens from the second on."""

    decisions: tuple[PositionDecisions, ...] = ()
    num_accepted: int = 0
    num_rejected: int = 0
    num_forced: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    """On the last delta."""

    trajectory: Trajectory | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A whole answer."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    trajectory: Trajectory | None = None
    logprobs: tuple[TokenLogprob, ...] = field(default=())
