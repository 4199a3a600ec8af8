"""What `response_format` orders, in OpenAI's terms."""

from collections.abc import Sequence

from proxy_model.decoding.grammar import ANY_JSON_OBJECT
from server.errors import invalid
from server.generation.form import Form, schema_form
from server.schemas.messages import ChatMessage
from server.schemas.response_format import ResponseFormat

_FIELD = "response_format"


def form_of(asked: ResponseFormat | None, messages: Sequence[ChatMessage]) -> Form | None:
    """None for plain text. Raises `ApiError` 400."""
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        if not any("json" in message.text().lower() for message in messages):
            message = "'messages' must contain the word 'json' in some form, to use 'response_format' of type"
            raise invalid(f"{message} 'json_object'.", param="messages")
        return Form(grammar=ANY_JSON_OBJECT, field=_FIELD, title="Invalid response_format")
    named = asked.json_schema
    if named is None:
        message = "Missing required parameter: 'response_format.json_schema'."
        raise invalid(message, param="response_format.json_schema", code="missing_required_parameter")
    title = f"Invalid schema for response_format '{named.name}'"
    return schema_form(named.schema_, field=_FIELD, title=title, is_strict=bool(named.strict))
