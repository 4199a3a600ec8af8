"""Tools, and which of them an answer may or must call."""

from typing import Annotated, Any, Literal

from pydantic import Field

from server.schemas.messages import Strict

MAX_TOOLS = 128
MAX_SCHEMA_BYTES = 1 << 16
"""Of one function's parameters, as JSON."""

FunctionName = Annotated[str, Field(max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]


class Function(Strict):
    """A function that the caller can run."""

    name: FunctionName
    description: Annotated[str, Field(max_length=MAX_SCHEMA_BYTES)] | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema of type object; absent: no parameters."""

    strict: bool | None = None


class Tool(Strict):
    """One tool; only functions can be called here."""

    type: Literal["function"]
    function: Function


class FunctionChoice(Strict):
    """A function by its name."""

    name: FunctionName


class NamedTool(Strict):
    """A tool by its name; as a choice: this one must be called."""

    type: Literal["function"]
    function: FunctionChoice


class AllowedTools(Strict):
    """Some of the tools, by their names, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolChoice(Strict):
    """Only these tools may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


Tools = Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS)]
ToolChoice = Literal["none", "auto", "required"] | Annotated[NamedTool | AllowedToolChoice, Field(discriminator="type")]
