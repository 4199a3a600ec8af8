"""Sizes of an engine: how much is in one step, in the cache, in the queue."""

from dataclasses import dataclass

from proxy_model.errors import InvalidParameter

DRAFT_TOKENS = 5
"""To draft where somebody waits for each token: with the newest, as many rows as the kernels multiply at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One engine's sizes. Raises `InvalidParameter`."""

    max_running: int = 32
    """Sequences in one step."""

    max_waiting: int = 256
    """Requests in the queue; one more is refused."""

    max_context: int = 2048
    """Tokens of a prompt and its answer; never more than the LLM's own limit."""

    prefill_tokens: int = 256
    """Prompt tokens in one step, so that a long prompt does not stall running answers."""

    num_staging: int = 8
    """Prompts on their way in at once."""

    prefix_cache_tokens: int = 8192
    """Tokens of prompts whose keys and values are kept for prompts that begin alike. 0: none."""

    max_candidates: int = 16
    """Width K of the slates; a proxy trained with more is refused."""

    candidates_per_pass: int = 4
    """Candidates of one position that the LLM reads side by side for proxies with `candidate` or `both` features, in
    answers in which they reject often. 1: one after the other."""

    candidate_rows: int = 16
    """Rows that the candidates of all answers may take in a pass; one each is the least. More cost more, measured with
    the demo LLM on CPU, than the passes that they save."""

    draft_tokens: int = 0
    """Tokens of an answer that are drafted by prompt lookup and verified, by LLM and proxy, in the pass that reads
    them. Only where a pass tells the same of a token as it would alone (`FrozenLLM.has_independent_rows`). 0: none."""

    draft_rows: int = 1 + DRAFT_TOKENS
    """Rows up to which a pass is filled with drafts. More cost what they save, measured with the demo LLM."""

    def __post_init__(self) -> None:
        for name in (
            "max_running",
            "max_context",
            "prefill_tokens",
            "num_staging",
            "max_candidates",
            "candidates_per_pass",
            "candidate_rows",
        ):
            if getattr(self, name) < 1:
                raise InvalidParameter(name, getattr(self, name), "at least 1")
        for name in ("max_waiting", "prefix_cache_tokens", "draft_tokens", "draft_rows"):
            if getattr(self, name) < 0:
                raise InvalidParameter(name, getattr(self, name), "at least 0")
