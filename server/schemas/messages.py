"""The messages of a conversation."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy_model.tokenizer import Message

MAX_MESSAGES = 2048
MAX_PARTS = 256


class Strict(BaseModel):
    """No coercion: a number in quotes is no number."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class TextPart(Strict):
    """A part of a message; only text can be read here."""

    type: Literal["text"]
    text: str


Content = str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)]


class _Spoken(Strict):
    content: Content
    name: str | None = None

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
    tool_call_id: str


class AssistantMessage(Strict):
    """What the assistant said before."""

    role: Literal["assistant"]
    content: Content | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None

    def text(self) -> str:
        """The content, or the refusal in its place."""
        if self.content is None:
            return self.refusal or ""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


ChatMessage = Annotated[
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


def to_template(message: SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage) -> Message:
    """A message as chat templates take it; `developer` is their `system`."""
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": message.text()}
