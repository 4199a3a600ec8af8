"""A run's settings as plain values: read from TOML or JSON, checked against the dataclasses, and written as JSON."""

import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from proxy_model.errors import InvalidParameter
from trainer.algorithm_config import require
from trainer.config import TrainConfig
from trainer.rewards.terms import RewardTerm, parse_terms, terms_to_json


def read_config(path: Path, **overrides: Any) -> TrainConfig:
    """Read a run's settings from a TOML or JSON file; top-level `overrides` win. Raises `InvalidParameter`."""
    return config_from_mapping({**read_settings(path), **overrides})


def read_settings(path: Path) -> dict[str, Any]:
    """The plain values of a TOML or JSON file, which need not be all of a run's. Raises `InvalidParameter`."""
    text = path.read_text(encoding="utf-8")
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise InvalidParameter("config", str(path), f"TOML or JSON ({error})") from error
    require(isinstance(values, dict), "config", str(path), "a table of settings")
    return cast(dict[str, Any], values)


def config_from_mapping(values: Mapping[str, Any]) -> TrainConfig:
    """Build the settings from plain values; unknown keys and wrong types are refused by their dotted name."""
    return cast(TrainConfig, _build(TrainConfig, values, ""))


def config_to_mapping(config: TrainConfig) -> dict[str, Any]:
    """The inverse of `config_from_mapping`: JSON values only."""
    lists = {"rewards": terms_to_json(config.rewards), "prompts": _paths_to_json(config.prompts)}
    return cast(dict[str, Any], _plain(asdict(config) | lists))


def _paths_to_json(paths: Sequence[Path]) -> list[str] | str | None:
    """One path as itself, as most files of settings have it."""
    return [str(path) for path in paths] if len(paths) > 1 else str(paths[0]) if paths else None


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def _build(kind: type, values: object, prefix: str) -> object:
    if not isinstance(values, Mapping):
        raise InvalidParameter(prefix.rstrip("."), values, "a table of settings")
    hints = get_type_hints(kind)
    names = {each.name for each in fields(kind)}
    for name in values:
        require(name in names, f"{prefix}{name}", values[name], f"left out; settings here are {sorted(names)}")
    for each in fields(kind):
        is_needed = each.default is MISSING and each.default_factory is MISSING
        require(not is_needed or each.name in values, f"{prefix}{each.name}", None, "given")
    return kind(**{name: _convert(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _convert(kind: Any, value: object, name: str) -> object:
    if is_dataclass(kind):
        return value if isinstance(value, cast(type, kind)) else _build(cast(type, kind), value, f"{name}.")
    if kind == tuple[RewardTerm, ...]:
        return parse_terms(value, name)
    if kind == tuple[Path, ...]:
        listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return tuple(cast(Path, _convert(Path, each, name)) for each in listed)
    if kind == tuple[str, ...]:
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(cast(str, _convert(str, each, name)) for each in listed)
    origin = get_origin(kind)
    if origin is Literal:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _convert(get_args(kind)[0], value, name)
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(type(value) is kind, name, value, f"of type {kind.__name__}")
    return value
