"""What /v1/responses answers."""

from typing import Any, Literal

from pydantic import BaseModel

from server.schemas.chat_response import TokenLogprob
from server.schemas.report import Position, ProxyReport

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputText(BaseModel):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[dict[str, Any]] = []
    logprobs: list[TokenLogprob] = []


class OutputMessage(BaseModel):
    """What the assistant said."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class IncompleteDetails(BaseModel):
    """Why it ended early."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseFailure(BaseModel):
    """Why it failed."""

    code: Literal["server_error", "rate_limit_exceeded"] = "server_error"
    message: str


class InputTokensDetails(BaseModel):
    """How many of them were not read, as a prompt of the same API key had begun alike. Keeping them costs nothing."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(BaseModel):
    """Nothing is thought in silence."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class ResponseProxy(ProxyReport):
    """The exact proxy, what it did, and the candidates of each position if asked for."""

    decisions: list[Position] | None = None


class ResponseObject(BaseModel):
    """An answer, whole or on its way."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    background: Literal[False] = False
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool = True
    previous_response_id: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str = "auto"
    tools: list[dict[str, Any]] = []
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]
    system_fingerprint: str
    proxy: ResponseProxy | None = None


class ResponseEvent(BaseModel):
    """An event of a stream; what else it holds follows from its type, as in OpenAI's grammar."""

    type: str
    sequence_number: int


class InputItem(BaseModel):
    """A message of a response's input."""

    id: str
    type: Literal["message"] = "message"
    role: str
    status: Literal["completed"] = "completed"
    content: list[dict[str, Any]]


class InputItemList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[InputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True
