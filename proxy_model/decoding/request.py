"""What goes into the engine and what comes out."""

import builtins
from dataclasses import dataclass, field
from typing import Literal

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.trajectory import Trajectory
from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.errors import InvalidParameter
from proxy_model.ranges import (
    LOGIT_BIAS,
    MAX_TOKENS,
    MIN_P,
    P_T,
    PENALTY,
    REPETITION_PENALTY,
    SEED,
    SKAM_TEMPERATURE,
    TARGET_RETURN,
    TEMPERATURE,
    TOP_K,
    TOP_LOGPROBS,
    TOP_P,
    Range,
)

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

    target_return: float | None = None
    """What a conditioned proxy aims at, in standard deviations of the reward; None: it is told nothing. Others take
    None only. `PolicyConfig.target_return` says what a caller's wish means for a proxy."""

    decision: Literal["greedy", "sample"] = "greedy"
    return_decisions: bool = False

    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids and what is added to their logits; each id once."""

    presence_penalty: float = 0.0
    """Taken off the logit of every token that the answer holds (OpenAI's formula; the prompt does not count)."""

    frequency_penalty: float = 0.0
    """The same, times how often the answer holds it."""

    repetition_penalty: float = 1.0
    """Divides the positive logits of the tokens of prompt and answer and multiplies the negative ones; 1 is none."""

    top_k: int | None = None
    """Only the k likeliest tokens, ties at the k-th kept. None: all."""

    min_p: float = 0.0
    """Only tokens with this share of the likeliest one's probability, at the temperature they are offered at."""

    grammar: GrammarSpec | None = None
    """What the whole answer has to be; end tokens come only where it may end."""

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            allowed.check(name, getattr(self, name))
        Range(0, self.max_tokens).check("min_tokens", self.min_tokens)
        for _, bias in self.logit_bias:
            LOGIT_BIAS.check("logit_bias", bias)
        if self.grammar is not None and self.ignore_eos:
            raise InvalidParameter("ignore_eos", True, "false where the answer has a form to keep")


_RANGES = {
    "max_tokens": MAX_TOKENS,
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "seed": SEED,
    "top_logprobs": TOP_LOGPROBS,
    "prompt_logprobs": TOP_LOGPROBS,
    "p_t": P_T,
    "skam_temperature": SKAM_TEMPERATURE,
    "skam_top_p": TOP_P,
    "target_return": TARGET_RETURN,
    "presence_penalty": PENALTY,
    "frequency_penalty": PENALTY,
    "repetition_penalty": REPETITION_PENALTY,
    "top_k": TOP_K,
    "min_p": MIN_P,
}


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

    prediction_token_ids: tuple[int, ...] = ()
    """What the caller believes that the answer will be. An engine that drafts tokens comes to it sooner if it is."""

    prefix_scope: str = ""
    """Prompts that begin alike share what was read of them only within one scope."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability under the LLM at temperature 1, before logit processors, grammar and proxy."""

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
    """At SKAM's temperature, of the LLM's logits as penalties, biases, filters and grammar leave them; not renormalised
    over the slate."""

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

    cached_tokens: int = 0
    """Tokens of the prompt that another one had brought into the cache: they were copied, not read."""

    drafted_tokens: int = 0
    """Tokens that were read in the hope that the answer goes on with them."""

    accepted_drafts: int = 0
    """Those of them with which it did: so many passes were saved."""


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
    num_cached: int = 0
    """On the first delta: `Usage.cached_tokens`."""

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
