"""The OpenAPI document of bodies that are read and checked by `body`."""

from typing import Any

from pydantic import BaseModel

from server.schemas.admin import Promotion, ProxyName, ProxyVersion
from server.schemas.chat_request import ChatRequest

_BODIES: tuple[type[BaseModel], ...] = (ChatRequest, Promotion, ProxyName, ProxyVersion)
_TEMPLATE = "#/components/schemas/{model}"


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """What a route adds to its description."""
    schema = {"$ref": _TEMPLATE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def body_schemas() -> dict[str, Any]:
    """The schemas that `json_body` points at, with those that they point at."""
    found: dict[str, Any] = {}
    for model in _BODIES:
        schema = model.model_json_schema(ref_template=_TEMPLATE)
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found
