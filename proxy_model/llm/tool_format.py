"""How an LLM writes calls of tools: found by showing its chat template one, so that no model is known by name."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy_model.errors import InvalidParameter

Render = Callable[[list[dict[str, Any]], bool], str]
"""(messages, whether the assistant's turn is opened) -> text, with the probe among the tools."""

_NAME = "probe_tool"
_ARGUMENTS = {"probe_argument": "probe"}
_ANSWER = "probe answer"
_QUESTION = {"role": "user", "content": "probe question"}

PROBE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Probes.",
        "parameters": {"type": "object", "properties": {"probe_argument": {"type": "string"}}},
    },
}


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """A call is a JSON object of a name and arguments; texts around it, special tokens included."""

    opening: str
    """From the start of the assistant's turn to the first call."""

    between: str | None
    """From one call to the next; None where a turn has only one."""

    closing: str
    """From the last call to the end of the turn."""

    name_key: str
    arguments_key: str


def find_tool_format(render: Render) -> ToolFormat | None:
    """The format that a template writes; None if it has no tools, or writes calls otherwise than as JSON."""
    try:
        opened = render([_QUESTION], True)
        if _NAME not in opened:
            return None
        end = render([_QUESTION, {"role": "assistant", "content": _ANSWER}], False).rpartition(_ANSWER)[2]
        turn = _turn(render, opened, end, 1)
    except InvalidParameter:
        return None
    calls = _objects(turn)
    keys = _keys(calls[0][2]) if len(calls) == 1 else None
    if keys is None:
        return None
    start, stop, _ = calls[0]
    return ToolFormat(turn[:start], _between(render, opened, end), turn[stop:], *keys)


def _turn(render: Render, opened: str, end: str, num_calls: int) -> str:
    """The assistant's turn with so many calls, without what opens and ends every turn."""
    call = {"type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
    calls = [{"id": f"probecal{number}"} | call for number in range(num_calls)]
    whole = render([_QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}], False)
    num_alike = next((i for i, (a, b) in enumerate(zip(opened, whole, strict=False)) if a != b), len(opened))
    return whole[num_alike:].removesuffix(end)


def _between(render: Render, opened: str, end: str) -> str | None:
    try:
        turn = _turn(render, opened, end, 2)
    except InvalidParameter:
        return None
    calls = _objects(turn)
    return turn[calls[0][1] : calls[1][0]] if len(calls) == 2 else None


def _objects(text: str) -> Sequence[tuple[int, int, dict[str, Any]]]:
    """Start, end and content of the JSON objects in `text` that name the probe."""
    decoder, found, place = json.JSONDecoder(), [], text.find("{")
    while place >= 0:
        try:
            content, stop = decoder.raw_decode(text, place)
        except ValueError:
            content, stop = None, place + 1
        if isinstance(content, dict) and _NAME in content.values():
            found.append((place, stop, content))
        else:
            stop = place + 1
        place = text.find("{", stop)
    return found


def _keys(call: dict[str, Any]) -> tuple[str, str] | None:
    """Under which keys a call has its name and its arguments."""
    arguments = [key for key, value in call.items() if value == _ARGUMENTS]
    names = [key for key, value in call.items() if value == _NAME]
    return (names[0], arguments[0]) if arguments else None
