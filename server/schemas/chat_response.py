"""The answers of POST /v1/chat/completions, whole and in chunks."""

from typing import Literal

from pydantic import BaseModel

from server.schemas.report import ChoiceProxy, ChunkProxy, FinishReason, ProxyReport, Usage


class TopLogprob(BaseModel):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token that came; log-probabilities are the LLM's at temperature 1, before the proxy."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """The tokens' texts join to the content."""

    content: list[TokenLogprob]
    refusal: None = None


class CalledFunction(BaseModel):
    """A function and its arguments, which are JSON."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call that the caller should run."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatAnswer(BaseModel):
    """A choice's message; `content` is null when it is calls only."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | None = None


class Choice(BaseModel):
    """One of `n` answers."""

    index: int
    message: ChatAnswer
    logprobs: Logprobs | None
    finish_reason: FinishReason
    proxy: ChoiceProxy | None


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str
    service_tier: Literal["default"] = "default"
    proxy: ProxyReport | None


class ChunkFunction(BaseModel):
    """A part of a called function: its name first, then its arguments."""

    name: str | None = None
    arguments: str


class ChunkToolCall(BaseModel):
    """A part of a call; `id`, `type` and the name come with the first one."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: ChunkFunction


class ChunkDelta(BaseModel):
    """What is new; only what was set is sent."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[ChunkToolCall] | None = None


class ChunkChoice(BaseModel):
    """A step of one choice."""

    index: int
    delta: ChunkDelta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None
    proxy: ChoiceProxy | ChunkProxy | None = None


class ChatChunk(BaseModel):
    """A step of an answer; `usage` and `proxy` are sent where they were set."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    proxy: ProxyReport | None = None
