"""Which form an answer is to have."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from server.schemas.messages import Strict


class JsonSchemaFormat(Strict):
    """A JSON schema with its name."""

    model_config = ConfigDict(use_attribute_docstrings=True, serialize_by_alias=True)

    name: Annotated[str, Field(max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
    description: str | None = None
    """Understood and not used: what the LLM should know about the form belongs into the messages."""

    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    """Followed exactly, strict or not; what cannot be followed is refused."""

    strict: bool | None = None
    """True: the schema must be of the subset that OpenAI's strict mode takes."""


class ResponseFormat(Strict):
    """Text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
