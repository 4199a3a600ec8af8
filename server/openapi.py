"""The OpenAPI document: bodies that are read by `body`, event streams, and every error that an operation may answer."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from server.schemas.admin import Canary, Promotion, ProxyVersion, Rollback
from server.schemas.chat_request import ChatRequest
from server.schemas.chat_response import ChatChunk
from server.schemas.completion_request import CompletionRequest
from server.schemas.error import ErrorEnvelope
from server.schemas.feedback import FeedbackRequest
from server.schemas.files import FileUpload
from server.schemas.fine_tuning import FineTuningJobRequest
from server.schemas.response_object import ResponseEvent
from server.schemas.response_request import ResponseRequest
from server.schemas.stored_chat import MetadataUpdate
from server.schemas.tokens import DetokenizeRequest, TokenizeRequest

_MODELS: tuple[type[BaseModel], ...] = (
    ChatRequest,
    ChatChunk,
    CompletionRequest,
    ResponseRequest,
    ResponseEvent,
    FeedbackRequest,
    FileUpload,
    FineTuningJobRequest,
    MetadataUpdate,
    TokenizeRequest,
    DetokenizeRequest,
    Promotion,
    Canary,
    ProxyVersion,
    Rollback,
    ErrorEnvelope,
)
"""What routes name by `json_body` and `event_stream`: FastAPI does not see these."""

_TEMPLATE = "#/components/schemas/{model}"
_METHODS = ("get", "post", "put", "patch", "delete")

_ERRORS = {
    "400": "A parameter is missing, wrong or out of range; `error.param` names it.",
    "401": "No key, or one that is not known.",
    "403": "The key may not do this, or nobody may.",
    "404": "There is no such thing.",
    "409": "It is in use.",
    "413": "The body is too large.",
    "429": "Too many requests; try again after `Retry-After` seconds.",
    "500": "The server had an error.",
    "503": "Loading, draining, or no longer able to serve; try again after `Retry-After` seconds.",
}
_RETRIED = ("429", "503")
_RETRY_AFTER = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """What a route that reads a `model` passes as `openapi_extra`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref(model)}}}}


def form_body(model: type[BaseModel]) -> dict[str, Any]:
    """The same for a form with a file."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _ref(model)}}}}


def event_stream(model: type[BaseModel], *, description: str) -> dict[int | str, dict[str, Any]]:
    """What a route that may answer with server-sent events passes as `responses`; a `model` is the JSON of one."""
    json = {"contentMediaType": "application/json", "contentSchema": {"anyOf": [_ref(model), _ref(ErrorEnvelope)]}}
    data = {"type": "string", "description": "An error ends the stream.", "anyOf": [{"const": "[DONE]"}, json]}
    item = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {200: {"description": description, "content": {"text/event-stream": {"itemSchema": item}}}}


def operation_id(route: APIRoute) -> str:
    """`createChatCompletion` of `create_chat_completion`: OpenAI's style, and good names in a generated client."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document of `app`, made once."""
    if not app.openapi_schema:
        found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        schemas |= _schemas()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path, operations in found["paths"].items():
            for method in operations.keys() & _METHODS:
                _declare_errors(operations[method], path)
        app.openapi_schema = found
    return app.openapi_schema


def _declare_errors(operation: dict[str, Any], path: str) -> None:
    """All that this kind of operation may answer, in place of FastAPI's 422."""
    responses = operation["responses"]
    responses.pop("422", None)
    for status in sorted(_statuses(operation, path) - responses.keys()):
        responses[status] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": _ref(ErrorEnvelope)}},
        }
        if status in _RETRIED:
            responses[status]["headers"] = _RETRY_AFTER


def _statuses(operation: dict[str, Any], path: str) -> set[str]:
    statuses = {"500", "503"}
    if operation.get("security"):
        statuses |= {"401", "403", "429"}
    if operation.get("parameters"):
        statuses |= {"400", "404"}
    if "requestBody" in operation:
        statuses |= {"400", "404", "413"}
    if path.startswith("/admin") or operation["operationId"] == "deleteModel":
        statuses |= {"409"}
    return statuses


def _schemas() -> dict[str, Any]:
    """The schemas of `_MODELS`, with those that they point at."""
    found: dict[str, Any] = {}
    for model in _MODELS:
        schema = model.model_json_schema(ref_template=_TEMPLATE)
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}
