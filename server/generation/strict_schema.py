"""The subset of JSON schema that OpenAI's strict mode takes: every object closed, every property required."""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy_model.decoding.grammar import MAX_SCHEMA_DEPTH

_FORBIDDEN = ("allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas")

Context = tuple[str, ...]


def strict_problem(schema: Mapping[str, Any]) -> str | None:
    """What OpenAI would say against `schema` under `strict`, or None."""
    if schema.get("type") != "object":
        found = schema.get("type")
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{str(found)[:40]}\"'"
    for context, inner in _schemas(schema, ()):
        problem = _problem(inner)
        if problem is not None:
            return f"In context={context!r}, {problem}"
    return None


def _problem(schema: Mapping[str, Any]) -> str | None:
    for name in _FORBIDDEN:
        if name in schema:
            return f"'{name}' is not permitted"
    if not {"type", "anyOf", "$ref", "enum", "const"} & schema.keys():
        return "schema must have a 'type' key"
    properties = schema.get("properties", {})
    if schema.get("type") != "object" or not isinstance(properties, Mapping):
        return None
    if schema.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false"
    required = schema.get("required", [])
    missing = [name for name in properties if not isinstance(required, list) or name not in required]
    if missing:
        return (
            "'required' is required to be supplied and to be an array including every key in properties. "
            f"Missing '{missing[0][:64]}'"
        )
    return None


def _schemas(schema: Mapping[str, Any], context: Context) -> Iterator[tuple[Context, Mapping[str, Any]]]:
    """Every schema in `schema`, itself first, with the path that leads there; no deeper than the core would go."""
    yield context, schema
    if len(context) > 2 * MAX_SCHEMA_DEPTH:
        return
    for path, inner in _children(schema):
        if isinstance(inner, Mapping):
            yield from _schemas(inner, (*context, *path))


def _children(schema: Mapping[str, Any]) -> Iterator[tuple[Context, object]]:
    for name in ("properties", "$defs", "definitions"):
        named = schema.get(name)
        if isinstance(named, Mapping):
            yield from (((name, key), inner) for key, inner in named.items())
    for name in ("anyOf", "prefixItems"):
        listed = schema.get(name)
        if isinstance(listed, list):
            yield from (((name, str(index)), inner) for index, inner in enumerate(listed))
    yield ("items",), schema.get("items")
