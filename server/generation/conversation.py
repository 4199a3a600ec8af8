"""What the messages of a conversation must be to each other."""

from collections.abc import Sequence

from server.errors import ApiError, invalid
from server.schemas.messages import AnyMessage


def check_conversation(messages: Sequence[AnyMessage]) -> None:
    """Every call of a tool is answered right after it, and nothing else is. Raises `ApiError` 400."""
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise _orphan(index)
            waiting.remove(message.tool_call_id)
            continue
        if waiting:
            raise _unanswered(index, waiting)
        if message.role == "assistant":
            if message.is_silent:
                raise _silent(index)
            waiting = {call.id for call in message.tool_calls or ()}
    if waiting:
        raise _unanswered(len(messages) - 1, waiting)


def _orphan(index: int) -> ApiError:
    message = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
    return invalid(f"Invalid parameter: {message}", param=f"messages[{index}].role")


def _unanswered(index: int, ids: set[str]) -> ApiError:
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"These have no response: {', '.join(sorted(ids))[:200]}"
    )
    return invalid(message, param=f"messages[{index}].role")


def _silent(index: int) -> ApiError:
    param = f"messages[{index}].content"
    message = f"Invalid value for '{param}': an assistant message without 'tool_calls' must have content."
    return invalid(message, param=param, code="invalid_type")
