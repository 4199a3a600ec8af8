"""From JSON to the dataclasses of `config`: every key known, every key there, every value of its type and range."""

from dataclasses import Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from proxy_model.config import PolicyConfig, SkamConfig
from proxy_model.errors import BadCheckpoint, InvalidParameter

Config = TypeVar("Config", PolicyConfig, SkamConfig)


def config_from_json(kind: type[Config], found: Any, where: str) -> Config:
    """Build `kind` from a parsed JSON object; `where` is for the message. Raises `BadCheckpoint("format")`."""
    if not isinstance(found, dict):
        raise BadCheckpoint("format", f"{where} is not an object")
    known: dict[str, Field[Any]] = {item.name: item for item in fields(kind)}
    if found.keys() != known.keys():
        raise BadCheckpoint("format", f"{where} lacks or adds {sorted(found.keys() ^ known.keys())}")
    for name, value in found.items():
        if not _is_of_type(known[name].type, value):
            raise BadCheckpoint("format", f"{where}.{name} is {value!r:.80}, which is of the wrong type")
    try:
        return kind(**found)
    except InvalidParameter as error:
        raise BadCheckpoint("format", f"{where}: {error}") from error


def _is_of_type(annotation: Any, value: Any) -> bool:
    """Whether a parsed JSON value fits a field's annotation; an int is a float, a bool is neither."""
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    if isinstance(annotation, UnionType):
        return any(_is_of_type(part, value) for part in get_args(annotation))
    if annotation is None or annotation is NoneType:
        return value is None
    if annotation is float:
        return type(value) in (int, float)
    return type(value) is annotation
