"""What a request's tools mean: what the chat template is shown, and how calls are found in the answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy_model.llm.tokenizer import ChatTokenizer
from proxy_model.llm.tool_format import ToolFormat
from server.chat.tool_call_parser import Marks, ToolCallParser
from server.errors import ApiError, invalid
from server.schemas.chat_request import ChatRequest
from server.schemas.tools import MAX_SCHEMA_BYTES, AllowedToolChoice, NamedTool, Tool, ToolChoice

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """How an answer may use tools."""

    tools: tuple[Tool, ...]
    format: ToolFormat
    marks: Marks
    between: str
    closing: str
    """The format's own texts where clients would see all of them, else empty: a grammar is about what they see."""

    is_forced: bool
    """The answer is calls and nothing else; its prompt opens the first one."""

    max_calls: int | None
    """What is called beyond this many is dropped. None: any number."""

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The tools as chat templates take them."""
        return [shown_tool(tool) for tool in self.tools]

    @property
    def answer_start(self) -> str:
        """What the prompt says of the assistant's turn already."""
        return self.format.opening if self.is_forced else ""

    def around_arguments(self, name: str) -> tuple[str, str]:
        """A call of `name` before and after its arguments."""
        form = self.format
        return f"{{{json.dumps(form.name_key)}: {json.dumps(name)}, {json.dumps(form.arguments_key)}: ", "}"

    def parser(self) -> ToolCallParser:
        """For one answer."""
        return ToolCallParser(self.marks, is_in_call=self.is_forced)


def check_tools(chat: ChatRequest) -> None:
    """Refuse tools that contradict each other. Raises `ApiError` 400."""
    if chat.functions or chat.function_call not in (None, "none", "auto"):
        param = "functions" if chat.functions else "function_call"
        message = f"'{param}' is the older word and not supported: use 'tools' and 'tool_choice'."
        raise invalid(message, param=param, code="unsupported_value")
    if not chat.tools and chat.tool_choice is not None:
        message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        raise invalid(message, param="tool_choice", code=None)
    known = {tool.function.name for tool in chat.tools or ()}
    for name in _names(chat.tool_choice) or ():
        if name not in known:
            raise invalid(f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
    for index, tool in enumerate(chat.tools or ()):
        _check_schema(tool, f"tools[{index}].function.parameters")


def tool_use(chat: ChatRequest, tokenizer: ChatTokenizer) -> ToolUse | None:
    """How the answer may use tools; None if it may not. Raises `ApiError` 400 where the chat template has none."""
    calling = next((i for i, m in enumerate(chat.messages) if m.role == "assistant" and m.tool_calls), None)
    may_call = bool(chat.tools) and chat.tool_choice != "none"
    if calling is None and not may_call:
        return None
    form = tokenizer.tool_format
    if form is None:
        raise no_tools("tools" if may_call else f"messages[{calling}].tool_calls")
    if not may_call:
        return None
    names = _names(chat.tool_choice)
    is_single = isinstance(chat.tool_choice, NamedTool) or chat.parallel_tool_calls is False
    return ToolUse(
        tools=tuple(tool for tool in chat.tools or () if names is None or tool.function.name in names),
        format=form,
        marks=_marks(form, tokenizer),
        between=_seen_whole(form.between or "", tokenizer),
        closing=_seen_whole(form.closing, tokenizer),
        is_forced=_is_forced(chat.tool_choice),
        max_calls=1 if is_single else None,
    )


def shown_tool(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates take it: they read all of these without asking whether they are there."""
    function = tool.function
    parameters = NO_PARAMETERS if function.parameters is None else function.parameters
    described = {"name": function.name, "description": function.description or "", "parameters": parameters}
    return {"type": "function", "function": described}


def no_tools(param: str) -> ApiError:
    """400: `param` asks for what the chat template has not."""
    message = f"'{param}' is not supported by this model: its chat template has no tools that can be read."
    return invalid(message, param=param, code="unsupported_value")


def _names(choice: ToolChoice | None) -> set[str] | None:
    """The tools that may be called; None: all."""
    match choice:
        case NamedTool():
            return {choice.function.name}
        case AllowedToolChoice():
            return {tool.function.name for tool in choice.allowed_tools.tools}
    return None


def _is_forced(choice: ToolChoice | None) -> bool:
    mode = choice.allowed_tools.mode if isinstance(choice, AllowedToolChoice) else choice
    return mode not in (None, "none", "auto")


def _marks(form: ToolFormat, tokenizer: ChatTokenizer) -> Marks:
    opening, between, closing = (
        tokenizer.visible(text).strip() for text in (form.opening, form.between or "", form.closing)
    )
    return Marks(opening, between, closing, form.name_key, form.arguments_key)


def _seen_whole(text: str, tokenizer: ChatTokenizer) -> str:
    return text if tokenizer.visible(text) == text else ""


def _check_schema(tool: Tool, param: str) -> None:
    parameters = tool.function.parameters
    if parameters is None:
        return
    title = f"Invalid schema for function '{tool.function.name}'"
    if parameters and parameters.get("type") != "object":
        raise invalid(f"{title}: it must be of type 'object'.", param=param, code="invalid_function_parameters")
    if len(json.dumps(parameters)) > MAX_SCHEMA_BYTES:
        message = f"{title}: it is larger than {MAX_SCHEMA_BYTES} bytes."
        raise invalid(message, param=param, code="string_above_max_length")


def unenforced(chat: ChatRequest, use: ToolUse | None) -> Sequence[str]:
    """Fields that ask for more than happens: unless calls are forced, nothing holds their arguments to a schema."""
    is_strict = any(tool.function.strict for tool in chat.tools or ())
    return ("tools.function.strict",) if use is not None and is_strict and not use.is_forced else ()
