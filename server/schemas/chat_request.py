"""The body of POST /v1/chat/completions, with the ranges that OpenAI documents."""

from typing import Annotated, Any

from pydantic import Field

from proxy_model.ranges import TOP_LOGPROBS
from server.schemas.bounds import within
from server.schemas.generation import GenerationBody, Metadata, Positive
from server.schemas.messages import MAX_MESSAGES, ChatMessage
from server.schemas.prediction import Prediction
from server.schemas.response_format import ResponseFormat
from server.schemas.tools import ToolChoice, Tools


class ChatRequest(GenerationBody):
    """A conversation to be continued."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, within(TOP_LOGPROBS)] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    response_format: ResponseFormat | None = None
    prediction: Prediction | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    """OpenAI's older word for `tools`, which is refused."""

    function_call: str | dict[str, Any] | None = None
