"""Fields that are understood but not implemented: named in a header, refused under `--strict`, or refused always."""

import re

from server.errors import ApiError, invalid
from server.schemas.chat_request import NO_OPS, ChatRequest

HEADER = "x-ignored-fields"

_MAX_NAMED = 32
_CHECKED_ONLY = ("frequency_penalty", "presence_penalty", "logit_bias")
_OF_THE_PROXY = ("p_t", "temperature", "top_p", "decision")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def ignored_fields(chat: ChatRequest, *, has_proxy: bool) -> list[str]:
    """Names of the fields that ask for something which will not happen. Raises 400 where that would break callers."""
    _refuse_breaking(chat)
    asked = dict(chat.model_extra or {}) | {name: getattr(chat, name) for name in _CHECKED_ONLY}
    ignored = [name for name, value in asked.items() if not _is_no_op(name, value)]
    if chat.proxy is not None and not has_proxy:
        ignored += [f"proxy.{name}" for name in _OF_THE_PROXY if getattr(chat.proxy, name) is not None]
    return sorted(name if _SAFE_NAME.fullmatch(name) else "?" for name in ignored[:_MAX_NAMED])


def require_none(ignored: list[str]) -> None:
    """Raise 400 naming the first of `ignored`."""
    if ignored:
        raise invalid(f"Unsupported parameter: '{ignored[0]}'.", param=ignored[0], code="unsupported_parameter")


def _is_no_op(name: str, value: object) -> bool:
    return any(value == no_op and type(value) is type(no_op) for no_op in NO_OPS.get(name, (None,)))


def _refuse_breaking(chat: ChatRequest) -> None:
    """A caller that asked for tools or JSON cannot go on with plain text."""
    if chat.tools:
        raise _unsupported("tools")
    if chat.functions:
        raise _unsupported("functions")
    if chat.response_format is not None and chat.response_format.type != "text":
        raise _unsupported("response_format", f" of type '{chat.response_format.type}'")
    for index, message in enumerate(chat.messages):
        if message.role == "assistant" and message.tool_calls:
            raise _unsupported(f"messages[{index}].tool_calls")


def _unsupported(param: str, what: str = "") -> ApiError:
    return invalid(f"'{param}'{what} is not supported by this model.", param=param, code="unsupported_value")
