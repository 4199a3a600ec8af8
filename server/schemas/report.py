"""What an answer tells besides its text, whichever endpoint gives it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length", "tool_calls"]


class Candidate(BaseModel):
    """One candidate that was offered to the proxy."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    token_id: int
    token: str
    """Its text alone; broken UTF-8 shows as U+FFFD, an end token by its name."""

    bytes: list[int]
    """Its UTF-8; empty for an end token."""

    prob: float
    """The LLM's probability of it under SKAM's temperature, not renormalised."""

    accept_prob: float | None
    """The proxy's probability of accepting it; null where accepting was forced, so that the proxy was not asked."""

    is_free: bool
    """Whether the proxy decided; false: SKAM had masked reject."""

    is_accepted: bool


class Position(BaseModel):
    """What happened at the position of one token."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    """What the token brought to the content; the texts of all positions join to it. Empty for an end token, for a stop
    string's tokens and for all but the last token of a character."""

    candidates: list[Candidate]
    """Those that the proxy saw, in the order offered: the rejected ones, then the accepted one."""


class ChoiceProxy(BaseModel):
    """What the proxy did in one choice."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    accepted: int
    """Tokens."""

    rejections: int
    """Candidates that were rejected."""

    forced: int
    """Tokens that could not be rejected."""

    decisions: list[Position] | None = None
    """One for every token, with `proxy.return_decisions`; null without, and in a stream, whose chunks carry them."""


class ChunkProxy(BaseModel):
    """What happened at the tokens of one chunk."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    decisions: list[Position]
    """Their texts join to the chunk's."""


def _is_none(value: object) -> bool:
    return value is None


class ProxyReport(BaseModel):
    """The exact proxy, and its totals over all choices."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    version: int
    accepted: int
    rejections: int
    forced: int
    target_return: Annotated[float | None, Field(exclude_if=_is_none)] = None
    """What it aimed at; absent where the proxy is not conditioned on a return."""


class PromptTokensDetails(BaseModel):
    """How many of them were not read, as a prompt of the same API key had begun alike."""

    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    """What became of the tokens that were read ahead of the answer, in the hope that it follows the prediction."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: Annotated[CompletionTokensDetails | None, Field(exclude_if=_is_none)] = None
    """Absent where nothing was predicted."""
