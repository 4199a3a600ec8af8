"""Trained models that a run is rewarded by. Operators name folders; whoever only may name a grader names no path."""

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


TrainedSource: TypeAlias = TrainedReward

SOURCES: Mapping[str, type[TrainedSource]] = {TrainedReward.type: TrainedReward}


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
