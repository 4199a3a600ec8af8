"""What a run is rewarded by: its `[[rewards]]` tables, one a term of the weighted sum.

[[rewards]]
type = "trained"                   # or ensemble, or any grader of `store.fine_tuning.graders`
folder = "demo/rewards/harmless"   # of `proxy-rlhf reward`
weight = 1.0                       # below 0: a punishment
name = "harmless"                  # of its metric; the folder's name, or the type, if it is left out
sources = ["hh_harmless"]          # only for prompts whose source begins with one of these; all, if it is left out
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from proxy_model.errors import InvalidParameter
from store.fine_tuning.graders import GRADERS, Grader, grader_to_json, parse_grader
from store.fine_tuning.require import require
from trainer.rewards.sources import SOURCES, TrainedReward, TrainedSource, parse_source

RewardSource: TypeAlias = TrainedSource | Grader


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTerm:
    """Where a score comes from, and what it counts."""

    source: RewardSource
    weight: float = 1.0
    sources: tuple[str, ...] = ()
    """How the sources of the prompts begin whose answers it scores; empty: it scores all."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.weight) and self.weight != 0, "weight", self.weight, "a number other than 0")

    @property
    def name(self) -> str:
        """What its metric is called."""
        return self.source.name


def trained_term(folder: Path, weight: float = 1.0) -> RewardTerm:
    """The reward model in `folder`, called by the folder's name."""
    return RewardTerm(source=TrainedReward(name=folder.name or str(folder), folder=folder), weight=weight)


def parse_terms(value: object, parameter: str = "rewards") -> tuple[RewardTerm, ...]:
    """Terms from a list of tables; terms that are terms already are kept. Raises `InvalidParameter` by dotted name."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidParameter(parameter, value, "a list of tables")
    terms = tuple(_parse_term(each, f"{parameter}[{index}]") for index, each in enumerate(value))
    names = [term.name for term in terms]
    for name in names:
        require(names.count(name) == 1, f"{parameter}.name", name, "different for each term: give names")
    return terms


def terms_to_json(terms: Sequence[RewardTerm]) -> list[dict[str, Any]]:
    """The inverse of `parse_terms`."""
    return [_term_to_json(term) for term in terms]


def _term_to_json(term: RewardTerm) -> dict[str, Any]:
    sources = {"sources": list(term.sources)} if term.sources else {}
    return _source_to_json(term.source) | {"weight": term.weight} | sources


def _source_to_json(source: RewardSource) -> dict[str, Any]:
    return source.to_json() if isinstance(source, TrainedSource) else grader_to_json(source)


def _parse_term(value: object, parameter: str) -> RewardTerm:
    if isinstance(value, RewardTerm):
        return value
    if not isinstance(value, Mapping):
        raise InvalidParameter(parameter, value, "a table of a reward's settings")
    given = dict(value)
    weight, sources = given.pop("weight", 1.0), given.pop("sources", None)
    kind = str(given.get("type"))
    require(kind in SOURCES or kind in GRADERS, f"{parameter}.type", kind, f"one of {[*SOURCES, *sorted(GRADERS)]}")
    is_trained = kind in SOURCES
    source = parse_source(given, parameter) if is_trained else parse_grader({"name": kind, **given}, parameter)
    require(type(weight) in (int, float), f"{parameter}.weight", weight, "a number other than 0")
    return RewardTerm(source=source, weight=weight, sources=_parse_sources(sources, f"{parameter}.sources"))


def _parse_sources(value: object, parameter: str) -> tuple[str, ...]:
    if value is None:
        return ()
    is_list = isinstance(value, list) and bool(value) and all(isinstance(each, str) and each for each in value)
    require(is_list, parameter, value, "a list of how sources begin, or left out")
    return tuple(cast(list[str], value))
