"""A request's body: bounded, JSON, and of the right form; or an error that names what is wrong."""

import json
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from server.errors import ApiError, invalid
from server.half_characters import half_character_at
from server.validation import refusal_of

M = TypeVar("M", bound=BaseModel)

MAX_DEPTH = 64
"""Levels of lists and objects in a body."""

_NOT_JSON = (
    "We could not parse the JSON body of your request. The API expects a JSON payload, but what was sent was not "
)


async def read_body(request: Request, model: type[M], max_bytes: int) -> M:
    """The body as a `model`. Raises `ApiError`: 413 beyond `max_bytes`, else 400 naming the parameter."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise invalid("The content type must be application/json.", param=None, code="unsupported_content_type")
    return parse(await _read(request, max_bytes), model)


def parse(data: bytes, model: type[M]) -> M:
    """JSON in UTF-8 to a `model`. Raises `ApiError`."""
    try:
        text = data.decode("utf-8")
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise invalid(_NOT_JSON + "valid JSON: it is nested too deeply.", param=None, code="invalid_json") from error
    except ValueError as error:
        raise invalid(_NOT_JSON + "valid JSON.", param=None, code="invalid_json") from error
    if not isinstance(content, dict):
        raise invalid(_NOT_JSON + "an object.", param=None, code="invalid_json")
    if _is_too_deep(content):
        raise invalid(_NOT_JSON + "valid JSON: it is nested too deeply.", param=None, code="invalid_json")
    if (place := half_character_at(text, content)) is not None:
        raise invalid("The text holds half a character (a lone surrogate).", param=place[:200] or None)
    return validated(content, model)


def validated(content: dict[str, Any], model: type[M]) -> M:
    """JSON that has been read to a `model`. Raises `ApiError` 400 that names the parameter."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False), content) from error


def invalid_query(error: ErrorDetails) -> ApiError:
    """400 that names the parameter of the URL which FastAPI found at fault."""
    location = error["loc"][1:]
    return refusal_of([{**error, "loc": location}], dict.fromkeys(location))


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(max_bytes)
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > max_bytes:
            raise too_large(max_bytes)
    return bytes(data)


def too_large(max_bytes: int) -> ApiError:
    """413."""
    message = f"The request body is larger than {max_bytes} bytes."
    return ApiError(413, message, "request_too_large", headers={"connection": "close"})


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_too_deep(content: Any) -> bool:
    """Whether lists and objects lie in each other more than `MAX_DEPTH` levels deep."""
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [item for value in level for item in _items(value) if isinstance(item, list | dict)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
