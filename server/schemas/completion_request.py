"""The body of POST /v1/completions."""

from typing import Annotated

from pydantic import Field

from server.schemas.generation import GenerationBody, Positive

MAX_PROMPTS = 2048
DEFAULT_MAX_TOKENS = 16

TokenId = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
Prompts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
TokenIdPrompts = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]


class CompletionRequest(GenerationBody):
    """Texts to be continued."""

    prompt: str | Prompts | TokenIds | TokenIdPrompts | None
    """null and the empty string: whatever the LLM begins a text with."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Positive | None = None
    suffix: str | None = None
    add_special_tokens: bool = True
    """Extension: whether to add the tokens that the LLM expects around a text."""
