"""The messages of a conversation, as OpenAI's reference has them; of what they carry only text can be read here."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from proxy_model.llm.tokenizer import Message

MAX_MESSAGES = 2048
MAX_PARTS = 256
MAX_CALLS = 128
MAX_LENGTH = 1 << 20
"""Characters of one text."""

Text = Annotated[str, Field(max_length=MAX_LENGTH)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Id = Annotated[str, Field(min_length=1, max_length=256)]


class Strict(BaseModel):
    """No coercion: a number in quotes is no number."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _Part(Strict):
    @field_validator("type", mode="before", check_fields=False)
    @classmethod
    def _refuse_other_media(cls, value: object) -> object:
        if value in ("image_url", "input_audio", "file"):
            raise PydanticCustomError(
                "unsupported_part", "this model reads text, no parts of type '{kind}'", {"kind": value}
            )
        return value


class TextPart(_Part):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class AssistantPart(_Part):
    """A part of what the assistant said: `text`, or a `refusal`."""

    type: Literal["text", "refusal"]
    text: Text = ""
    refusal: Text = ""


Content = Text | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)]
AssistantContent = Text | Annotated[list[AssistantPart], Field(min_length=1, max_length=MAX_PARTS)]


class _Spoken(Strict):
    content: Content
    name: Name | None = None

    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class SystemMessage(_Spoken):
    """Instructions."""

    role: Literal["system"]


class DeveloperMessage(_Spoken):
    """Instructions, in the newer word."""

    role: Literal["developer"]


class UserMessage(_Spoken):
    """What the user said."""

    role: Literal["user"]


class ToolMessage(_Spoken):
    """What a tool returned."""

    role: Literal["tool"]
    tool_call_id: Id


class FunctionMessage(Strict):
    """What a function returned, in the older word."""

    role: Literal["function"]
    content: Text | None
    name: Name

    def text(self) -> str:
        """The content."""
        return self.content or ""


class CalledFunction(Strict):
    """A function and its arguments, in JSON as the assistant wrote it."""

    name: Name
    arguments: Text


class ToolCallMessage(Strict):
    """A call that the assistant made before."""

    id: Id
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Strict):
    """What the assistant said before."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: Text | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCallMessage], Field(min_length=1, max_length=MAX_CALLS)] | None = None
    function_call: CalledFunction | None = None

    def text(self) -> str:
        """The content, or the refusal in its place."""
        if self.content is None:
            return self.refusal or ""
        return self.content if isinstance(self.content, str) else "".join(p.text or p.refusal for p in self.content)

    @property
    def is_silent(self) -> bool:
        """Whether it neither says nor does anything."""
        return self.content is None and self.refusal is None and not self.tool_calls and self.function_call is None


AnyMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
ChatMessage = Annotated[AnyMessage, Field(discriminator="role")]

_TEMPLATE_ROLES = {"developer": "system", "function": "tool"}


def to_template(message: AnyMessage) -> Message:
    """A message as chat templates take it, in the roles that they know."""
    found: Message = {"role": _TEMPLATE_ROLES.get(message.role, message.role), "content": message.text()}
    if message.role != "tool" and message.name is not None:
        found["name"] = message.name
    if message.role == "tool":
        found["tool_call_id"] = message.tool_call_id
    if message.role == "assistant" and message.tool_calls:
        found["tool_calls"] = [_call(call.function) | {"id": call.id} for call in message.tool_calls]
    elif message.role == "assistant" and message.function_call is not None:
        found["tool_calls"] = [_call(message.function_call)]
    return found


def _call(function: CalledFunction) -> dict[str, Any]:
    """Templates write the arguments out themselves; what is no JSON stays the string that it is."""
    try:
        arguments: Any = json.loads(function.arguments)
    except (ValueError, RecursionError):
        arguments = function.arguments
    return {"type": "function", "function": {"name": function.name, "arguments": arguments}}
