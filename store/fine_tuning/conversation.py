"""Conversations that wait for an answer, as files of prompts hold them."""

from typing import Any

Messages = list[dict[str, str]]
"""One `role` and `content` a turn, as the chat template takes it."""

_ROLES = ("system", "user", "assistant")


class BadRow(ValueError):
    """A row that cannot be trained on; the message says why."""


def parse_conversation(found: Any, name: str) -> Messages:
    """Maybe a system turn, then user and assistant in turns, user last. `name` is the row's key. Raises `BadRow`."""
    if not isinstance(found, list) or not found:
        raise BadRow(f"{name!r} must be a list of at least one message")
    messages = [_message(item, f"{name!r}[{index}]") for index, item in enumerate(found)]
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != (["user", "assistant"] * len(turns))[: len(turns)] or len(turns) % 2 == 0:
        raise BadRow(f"{name!r} must alternate user and assistant and end with user, got {roles!s:.200}")
    return messages


def _message(item: Any, place: str) -> dict[str, str]:
    if not isinstance(item, dict) or item.keys() != {"role", "content"}:
        raise BadRow(f"{place} must have 'role' and 'content' and nothing else")
    role, content = item["role"], item["content"]
    if role not in _ROLES:
        raise BadRow(f"{place}.role must be system, user or assistant, got {role!r:.40}")
    if not isinstance(content, str) or not content.strip():
        raise BadRow(f"{place}.content must be a string that is not blank")
    return {"role": role, "content": content}
