"""The form of an answer that must call tools: calls as the chat template writes them, their arguments by schema."""

import json
from typing import Any

from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.errors import BadGrammar
from server.chat.tools import NO_PARAMETERS, ToolUse
from server.generation.form import Form

_MAX_CALLS = 8
"""An answer that must call something calls at most so many, since a small LLM may never stop by itself."""

_AS_TEMPLATES_WRITE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

_TITLE = "Invalid schema for the functions of 'tools'"


def calls_form(use: ToolUse) -> Form | None:
    """None where the answer may be text. Raises `ApiError` 400 where the schemas are too large together."""
    if not use.is_forced:
        return None
    form = Form(grammar=GrammarSpec("lark", "start: call"), field="tools", title=_TITLE)
    try:
        return Form(grammar=GrammarSpec("lark", _grammar(use)), field="tools", title=_TITLE)
    except BadGrammar as error:
        raise form.refused(error.reason) from error


def _grammar(use: ToolUse) -> str:
    """In llguidance's Lark, from the first call's brace to the end of the turn."""
    numbers = range(len(use.tools))
    max_more = (_MAX_CALLS if use.max_calls is None else use.max_calls) - 1
    more = f"({json.dumps(use.between)} call){{0,{max_more}}}" if use.between and max_more else ""
    lines = [
        f"start: call {more} {json.dumps(use.closing) if use.closing else ''}",
        f"call: {' | '.join(f'call_{number}' for number in numbers)}",
    ]
    for number, tool in enumerate(use.tools):
        before, after = use.around_arguments(tool.function.name)
        lines.append(f"call_{number}: {json.dumps(before)} arguments_{number} {json.dumps(after)}")
        lines.append(f"arguments_{number}: %json {json.dumps(_schema(tool.function.parameters))}")
    return "\n".join(lines)


def _schema(parameters: dict[str, Any] | None) -> dict[str, Any]:
    return (parameters or NO_PARAMETERS | {"additionalProperties": False}) | {"x-guidance": _AS_TEMPLATES_WRITE}
