"""Trained models that a run is rewarded by. Operators name folders; whoever only may name a grader names no path."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from proxy_model.errors import InvalidParameter
from store.fine_tuning.graders import MAX_NAME_CHARACTERS
from store.fine_tuning.require import require, require_text


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedReward:
    """A reward model in a folder of `proxy-rlhf reward`."""

    type: ClassVar[str] = "trained"
    name: str
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """The inverse of `parse_source`."""
        return {"type": self.type, "name": self.name, "folder": str(self.folder)}

    @classmethod
    def parse(cls, given: dict[str, Any]) -> "TrainedReward":
        """Raises `InvalidParameter`."""
        folder = path_of("folder", given.pop("folder", None))
        return cls(name=given.pop("name", folder.name), folder=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSource:
    """Several folders of reward models, and how much their disagreement counts against an answer."""

    type: ClassVar[str] = "ensemble"
    name: str
    folders: tuple[Path, ...]
    pessimism: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """The inverse of `parse_source`."""
        folders = [str(folder) for folder in self.folders]
        return {"type": self.type, "name": self.name, "folders": folders, "pessimism": self.pessimism}

    @classmethod
    def parse(cls, given: dict[str, Any]) -> "EnsembleSource":
        """Raises `InvalidParameter`."""
        folders, pessimism = given.pop("folders", None), given.pop("pessimism", 1.0)
        require(isinstance(folders, list) and len(folders) >= 2, "folders", folders, "a list of at least two folders")
        is_number = type(pessimism) in (int, float) and 0 <= pessimism < math.inf
        require(is_number, "pessimism", pessimism, "a number, at least 0")
        paths = tuple(path_of("folders", folder) for folder in folders)
        return cls(name=given.pop("name", cls.type), folders=paths, pessimism=float(pessimism))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSource:
    """A sequence-classification model of transformers: a folder or a hub id."""

    type: ClassVar[str] = "classifier"
    name: str
    model: str

    def to_json(self) -> dict[str, Any]:
        """The inverse of `parse_source`."""
        return {"type": self.type, "name": self.name, "model": self.model}

    @classmethod
    def parse(cls, given: dict[str, Any]) -> "ClassifierSource":
        """Raises `InvalidParameter`."""
        model = given.pop("model", None)
        require_text("model", model, 4096, "a folder or hub id")
        return cls(name=given.pop("name", cls.type), model=model)


TrainedSource: TypeAlias = TrainedReward | EnsembleSource | ClassifierSource

SOURCES: Mapping[str, type[TrainedSource]] = {
    each.type: each for each in (TrainedReward, EnsembleSource, ClassifierSource)
}


def parse_source(values: Mapping[str, Any], parameter: str) -> TrainedSource:
    """A source whose `type` is known already. Raises `InvalidParameter` with the dotted name below `parameter`."""
    given = dict(values)
    kind = SOURCES[given.pop("type")]
    try:
        source = kind.parse(given)
        for name in given:
            require(False, name, given[name], f"left out; of {kind.type} there are {[e.name for e in fields(kind)]}")
        require_text("name", source.name, MAX_NAME_CHARACTERS, "a name")
    except InvalidParameter as error:
        raise InvalidParameter(f"{parameter}.{error.name}", error.value, error.allowed) from error
    return source


def path_of(name: str, value: object) -> Path:
    """Raises `InvalidParameter` naming `name`."""
    if not isinstance(value, str | Path) or not str(value):
        raise InvalidParameter(name, value, "the path of a folder")
    return Path(value)
