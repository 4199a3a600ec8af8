"""The answers of POST /v1/completions; whole ones and chunks have one form."""

from typing import Literal

from pydantic import BaseModel

from server.schemas.report import ChoiceProxy, ChunkProxy, FinishReason, ProxyReport, Usage


class CompletionLogprobs(BaseModel):
    """By token; the tokens join to the text. Log-probabilities are the LLM's at temperature 1, before the proxy."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """null for the first token of a text."""

    top_logprobs: list[dict[str, float] | None]
    """The likeliest ones, and the token itself."""

    text_offset: list[int]
    """Where the token begins in the text, in characters."""


class CompletionChoice(BaseModel):
    """One answer to one prompt; `index` counts the answers to the first prompt, then to the second, and so on."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    proxy: ChoiceProxy | ChunkProxy | None = None


class Completion(BaseModel):
    """An answer, or a step of one: then `usage` and `proxy` are sent where they were set."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str
    proxy: ProxyReport | None = None
