"""Settings of a process out of the words of its environment, as the types of their fields ask."""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from proxy_model.errors import InvalidParameter

_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def values_in(environment: Mapping[str, str], variables: Mapping[str, str], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """What the environment says of each field: `variables` names its variable, `kinds` its type.

    An empty variable says nothing. Raises `InvalidParameter` naming the variable.
    """
    return {
        field: _parsed(variable, environment[variable], kinds[field])
        for field, variable in variables.items()
        if environment.get(variable)
    }


def _parsed(variable: str, text: str, kind: Any) -> Any:
    """Of `kind | None` the first. A tuple is separated by commas or lines; what a Literal allows is not checked."""
    if isinstance(kind, types.UnionType):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return text
    if get_origin(kind) is tuple:
        return tuple(item for part in text.replace("\n", ",").split(",") if (item := part.strip()))
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise InvalidParameter(variable, text, f"one of {sorted(_SWITCH)}")
        return _SWITCH[text.lower()]
    if kind is Path:
        return Path(text).expanduser().absolute()
    try:
        return kind(text)
    except ValueError as error:
        raise InvalidParameter(variable, text, f"of type {kind.__name__}") from error
