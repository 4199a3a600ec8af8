"""From JSON to the dataclasses of `config` and back: every key known, every value of its type and range.

Every key must be there, except `LATER`: those came after the first checkpoints, which have none of them.
"""

from dataclasses import Field, asdict, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.errors import BadCheckpoint, InvalidParameter

Config = TypeVar("Config", PolicyConfig, SkamConfig)

LATER = frozenset({"is_conditioned", "default_target_return"})
"""Written only for conditioned proxies, so that every other checkpoint is as it was before there were any."""


def config_to_json(config: PolicyConfig | SkamConfig) -> dict[str, Any]:
    """The inverse of `config_from_json`."""
    is_conditioned = isinstance(config, PolicyConfig) and config.is_conditioned
    return {name: value for name, value in asdict(config).items() if is_conditioned or name not in LATER}


def config_from_json(kind: type[Config], found: Any, where: str) -> Config:
    """Build `kind` from a parsed JSON object; `where` is for the message. Raises `BadCheckpoint("format")`."""
    if not isinstance(found, dict):
        raise BadCheckpoint("format", f"{where} is not an object")
    known: dict[str, Field[Any]] = {item.name: item for item in fields(kind)}
    if found.keys() | LATER & known.keys() != known.keys():
        raise BadCheckpoint("format", f"{where} lacks or adds {sorted((found.keys() ^ known.keys()) - LATER)}")
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
