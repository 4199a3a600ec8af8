"""Stored chat completions: one, a list of them, their messages, and what may be changed."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from server.schemas.chat_response import ChatCompletion
from server.schemas.generation import Metadata
from server.schemas.messages import Strict


class MetadataUpdate(Strict):
    """New labels in place of the old ones; null takes all away."""

    model_config = ConfigDict(extra="forbid")

    metadata: Metadata | None


class StoredChatCompletion(ChatCompletion):
    """An answer as it was given, with its labels and the settings that its request named."""

    metadata: dict[str, str]
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    input_user: str | None = None


class StoredChatCompletionList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[StoredChatCompletion]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StoredMessage(BaseModel):
    """A message of the conversation that was answered."""

    model_config = ConfigDict(extra="allow")

    id: str
    role: str
    content: str | None
    content_parts: list[dict[str, Any]] | None
    name: str | None
    refusal: str | None


class StoredMessageList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[StoredMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ChatCompletionDeleted(BaseModel):
    """It is gone."""

    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    id: str
    deleted: Literal[True] = True
