"""What an answer tells besides its text, whichever endpoint gives it."""

from typing import Literal

from pydantic import BaseModel

FinishReason = Literal["stop", "length"]


class Candidate(BaseModel):
    """One candidate that the proxy was offered."""

    token_id: int
    token: str
    prob: float
    accept_prob: float | None
    is_free: bool
    is_accepted: bool


class Position(BaseModel):
    """The candidates seen at one position, the accepted one last."""

    candidates: list[Candidate]


class ChoiceProxy(BaseModel):
    """What the proxy did in one choice."""

    accepted: int
    rejections: int
    forced: int
    decisions: list[Position] | None = None


class ChunkProxy(BaseModel):
    """Decisions of the tokens in a chunk."""

    decisions: list[Position]


class ProxyReport(BaseModel):
    """The exact proxy, and its totals over all choices."""

    id: str
    version: int
    accepted: int
    rejections: int
    forced: int


class PromptTokensDetails(BaseModel):
    """Nothing is cached between requests."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
