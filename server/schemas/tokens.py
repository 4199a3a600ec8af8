"""The bodies of POST /tokenize and POST /detokenize, as vLLM has them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.completion_request import TokenId
from server.schemas.messages import MAX_LENGTH, MAX_MESSAGES, ChatMessage, Strict
from server.schemas.tools import Tools


class TokenizeRequest(Strict):
    """A text, or a conversation as the chat template spells it."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    prompt: Annotated[str, Field(max_length=MAX_LENGTH)] | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    """Whether to add the tokens that the LLM expects around a text; null: to a text. A chat template writes its own."""

    add_generation_prompt: bool = True
    """Of a conversation: whether the assistant's turn is opened."""

    continue_final_message: bool = False
    """Of a conversation: whether its last message is left open."""

    tools: Tools | None = None
    """Of a conversation."""

    return_token_strs: bool = False


class Tokens(BaseModel):
    """What the LLM reads."""

    count: int
    max_model_len: int
    """Tokens of a prompt and its answer together, at most."""

    tokens: list[int]
    token_strs: list[str] | None
    """As the vocabulary spells them; null unless asked for."""


class DetokenizeRequest(Strict):
    """Token ids."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MAX_LENGTH)]


class DetokenizedText(BaseModel):
    """Their text, special tokens by name."""

    prompt: str
