"""The body of POST /v1/responses, as far as it is text."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from server.schemas.generation import GenerationBody, Metadata, Positive
from server.schemas.messages import MAX_MESSAGES, MAX_PARTS, Id, Strict, Text

LOGPROBS = "message.output_text.logprobs"
"""What `include` names to have log-probabilities."""


class InputPart(Strict):
    """A part of an item; only text can be read here."""

    type: Literal["input_text", "output_text", "text", "refusal"]
    text: Text | None = None
    refusal: Text | None = None

    @model_validator(mode="after")
    def _require_text(self) -> Self:
        if self.spoken is None:
            field = "refusal" if self.type == "refusal" else "text"
            raise PydanticCustomError("missing_text", "a part of type '{kind}' needs '{field}'", _of(self.type, field))
        return self

    @property
    def spoken(self) -> str | None:
        """What it says."""
        return self.refusal if self.type == "refusal" else self.text


class InputMessage(Strict):
    """A turn of the conversation, as callers write it or as an earlier response showed it."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Annotated[list[InputPart], Field(min_length=1, max_length=MAX_PARTS)]

    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.spoken or "" for part in self.content)


class TextFormat(Strict):
    """Which form the answer has; `name`, `schema`, `strict` and `description` belong to `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextConfig(Strict):
    """How the answer is written."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseRequest(GenerationBody):
    """A conversation to be continued, maybe one that is stored."""

    input: Text | Annotated[list[InputMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    instructions: Text | None = None
    previous_response_id: Id | None = None
    max_output_tokens: Positive | None = None
    text: TextConfig | None = None
    include: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=16)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    truncation: Literal["auto", "disabled"] | None = None


def _of(kind: str, field: str) -> dict[str, Any]:
    return {"kind": kind, "field": field}
