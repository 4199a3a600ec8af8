"""What an engine offers to the server, wherever it runs."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.decoding.grammar_compiler import CompiledGrammar
from proxy_model.decoding.request import Delta, GenerationRequest
from proxy_model.llm.tokenizer import ChatTokenizer
from proxy_model.versions.checkpoint import Fingerprint
from server.telemetry.distribution import FIRST_TOKEN_SECONDS, INTER_TOKEN_SECONDS, STEP_SECONDS, Distribution

T = TypeVar("T")

State = Literal["loading", "running", "stalled", "dead"]
OVERDUE = "The request has waited too long for a slot."
UNREAD = "The answer was not read fast enough."
"""Errors of deltas that the server has words of its own for; any other error is the engine's fault."""

Capability = Literal["logprobs", "decisions", "target_return", "grammar", "prediction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether an engine can serve."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMCard:
    """The frozen LLM as the server needs to know it."""

    name: str
    fingerprint: Fingerprint
    vocab_size: int
    max_context: int
    loaded_at: int
    """Unix seconds."""

    computed_by: str
    """For people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """One answer that has ended; times in seconds, None for a phase that it did not reach."""

    proxy: ProxyRef | None
    status: str
    """`stop`, `length`, `abort` or `error`."""

    queue_seconds: float | None
    prefill_seconds: float | None
    decode_seconds: float | None
    total_seconds: float
    num_rejected: int
    request_id: str = ""
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    ended: float = 0.0
    """Monotonic seconds."""


@dataclass(slots=True)
class ProxyTally:
    """Tokens of one proxy version, or of the LLM alone."""

    num_accepted: int = 0
    num_rejected: int = 0
    num_forced: int = 0
    positions: Counter[int] = field(default_factory=Counter)
    """Number of positions by how many candidates were rejected there."""


@dataclass(slots=True)
class EngineStats:
    """What happened since the last `drain_stats`; the three last fields are as of now."""

    step_seconds: Distribution = field(default_factory=partial(Distribution, STEP_SECONDS))
    first_token_seconds: Distribution = field(default_factory=partial(Distribution, FIRST_TOKEN_SECONDS))
    inter_token_seconds: Distribution = field(default_factory=partial(Distribution, INTER_TOKEN_SECONDS))
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_drafts: int = 0
    tallies: dict[ProxyRef | None, ProxyTally] = field(default_factory=dict)
    ended: list[AnswerRecord] = field(default_factory=list)
    num_failed_steps: int = 0
    num_running: int = 0
    num_waiting: int = 0
    kv_cache_usage: float = 0.0


class Answer(Protocol):
    """The deltas of one request."""

    async def admitted(self) -> None:
        """Wait until the engine has the request. Raises `PromptTooLong`, `EngineFull`, `UnknownProxy` and the like."""

    def __aiter__(self) -> "Answer": ...

    async def __anext__(self) -> Delta: ...

    async def aclose(self) -> None:
        """Abort the request if it has not ended: its slot is free within one step."""


class Backend(Protocol):
    """An engine behind asyncio. Every method belongs to the event loop's thread."""

    capabilities: frozenset[Capability]

    async def start(self) -> LLMCard:
        """Load the LLM. Raises `ModelUnavailable` and the like."""

    async def stop(self) -> None:
        """End running answers with an error delta and leave."""

    async def ask_tokenizer(self, question: Callable[[ChatTokenizer], T]) -> T:
        """What `question` makes of the LLM's tokenizer, off the event loop. Raises what it raises."""

    async def compile_grammar(self, spec: GrammarSpec) -> CompiledGrammar:
        """Compile off the event loop; requests with `spec` start at once while the result is held.

        Raises `BadGrammar`.
        """

    def generate(self, request: GenerationRequest) -> Answer:
        """Queue `request` at once, in the order of the calls; closing the answer aborts it."""

    async def load_proxy(self, ref: ProxyRef, policy: ProxyPolicy, skam: SkamConfig, folder: Path) -> None:
        """Make a version available to new requests, between two steps; `folder` is where it was read, and an engine
        in other processes reads it there again. Raises `InvalidParameter`.
        """

    async def unload_proxy(self, ref: ProxyRef) -> None:
        """Take a version away from new requests; running ones keep it."""

    async def list_proxies(self) -> list[ProxyRef]:
        """Versions that are loaded."""

    def seconds_to_serve(self) -> float:
        """How long it will take until everyone who waits for a slot now has been served, as measured."""

    def drain_stats(self) -> EngineStats:
        """What happened since the last call."""

    def health(self) -> Health:
        """Whether it can serve now."""
