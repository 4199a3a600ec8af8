"""The body of POST /v1/chat/completions, with the ranges that OpenAI documents."""

from typing import Annotated, Any, Literal

from pydantic import Field

from server.schemas.generation import GenerationBody, Metadata, Positive
from server.schemas.messages import MAX_MESSAGES, ChatMessage, Strict


class ResponseFormat(Strict):
    """Which form the answer has."""

    type: Literal["text", "json_object", "json_schema"]


class ChatRequest(GenerationBody):
    """A conversation to be continued."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None
