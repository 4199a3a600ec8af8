"""Graders: what an answer is rewarded for, as OpenAI's grader objects and some of ours.

string_check, text_similarity, score_model, multi   OpenAI's; `python` and the like would execute code and are refused
reward_model                                         a reward model that was trained here, by its name
length, distinct, keywords, json, regex              rules that need no model; see `rule_graders`

Each checks its own numbers and names; `parse_grader` reads the JSON. Nothing in here computes a score.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias, cast, get_args

from proxy_model.errors import InvalidParameter
from store.fine_tuning.formula import Formula
from store.fine_tuning.grader_inputs import GraderMessage, SamplingParams
from store.fine_tuning.require import require, require_text
from store.fine_tuning.rule_graders import DistinctGrader, JsonGrader, KeywordsGrader, LengthGrader, RegexGrader
from store.fine_tuning.template import Template

Operation = Literal["eq", "ne", "like", "ilike"]
Metric = Literal["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]

MAX_NAME_CHARACTERS = 200
_REWARD_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MAX_GRADERS = 20
"""Of one `multi`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StringCheckGrader:
    """1 where `input` equals, differs from or contains (`like`; `ilike` whatever the case) `reference`, else 0."""

    type: ClassVar[str] = "string_check"
    name: str
    input: str
    reference: str
    operation: Operation

    def __post_init__(self) -> None:
        _require_templates(self)
        require(self.operation in get_args(Operation), "operation", self.operation, f"one of {get_args(Operation)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSimilarityGrader:
    """How alike `input` and `reference` are, in [0, 1]."""

    type: ClassVar[str] = "text_similarity"
    name: str
    input: str
    reference: str
    evaluation_metric: Metric

    def __post_init__(self) -> None:
        _require_templates(self)
        metrics = get_args(Metric)
        allowed = f"one of {metrics}: cosine and meteor need models and word lists that are not here"
        require(self.evaluation_metric in metrics, "evaluation_metric", self.evaluation_metric, allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreModelGrader:
    """The number that an LLM answers to `input`; the operator says at which endpoint."""

    type: ClassVar[str] = "score_model"
    name: str
    model: str
    input: tuple[GraderMessage, ...]
    range: tuple[float, float] = (0.0, 1.0)
    sampling_params: SamplingParams = field(default_factory=SamplingParams)

    def __post_init__(self) -> None:
        require_text("model", self.model, MAX_NAME_CHARACTERS, "the name of a model")
        require(bool(self.input), "input", self.input, "at least one message")
        low, high = self.range
        require(-1e6 <= low < high <= 1e6, "range", self.range, "two numbers, the lower one first")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelGrader:
    """The score of a trained reward model: about standard deviations of its training answers' scores."""

    type: ClassVar[str] = "reward_model"
    name: str
    model: str

    def __post_init__(self) -> None:
        is_name = type(self.model) is str and _REWARD_NAME.fullmatch(self.model) is not None
        require(is_name, "model", self.model, "the name of a reward model: a-z, 0-9, '.', '_' and '-'")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiGrader:
    """A formula over graders, by the names under which they are listed."""

    type: ClassVar[str] = "multi"
    name: str
    graders: Mapping[str, "Grader"]
    calculate_output: str

    def __post_init__(self) -> None:
        allowed = f"1 to {MAX_GRADERS} graders by name, none of them multi"
        require(1 <= len(self.graders) <= MAX_GRADERS, "graders", list(self.graders), allowed)
        require(not any(type(each) is MultiGrader for each in self.graders.values()), "graders", "multi", allowed)
        used = Formula.parse(self.calculate_output).names
        names = f"a formula of {sorted(self.graders)}"
        require(used <= self.graders.keys(), "calculate_output", self.calculate_output, names)
        idle = sorted(self.graders.keys() - used)
        require(not idle, "graders", idle, "left out where `calculate_output` does not use them")


Grader: TypeAlias = (
    StringCheckGrader
    | TextSimilarityGrader
    | ScoreModelGrader
    | RewardModelGrader
    | MultiGrader
    | LengthGrader
    | DistinctGrader
    | KeywordsGrader
    | JsonGrader
    | RegexGrader
)

GRADERS: Mapping[str, type[Grader]] = {kind.type: kind for kind in get_args(Grader)}


def parse_grader(value: object, parameter: str = "grader") -> Grader:
    """A grader from its JSON object. Raises `InvalidParameter` with the dotted name below `parameter`."""
    require(isinstance(value, Mapping), parameter, value, "a grader object")
    given = dict(cast(Mapping[str, Any], value))
    kind = given.pop("type", None)
    allowed = f"one of {sorted(GRADERS)}; graders that execute code are refused"
    require(isinstance(kind, str) and kind in GRADERS, f"{parameter}.type", kind, allowed)
    try:
        return _build(GRADERS[kind], given)
    except InvalidParameter as error:
        raise InvalidParameter(f"{parameter}.{error.name}", error.value, error.allowed) from error


def grader_to_json(grader: Grader) -> dict[str, Any]:
    """The inverse of `parse_grader`: JSON values, what was left out with its default."""
    plain: dict[str, Any] = {"type": grader.type, **asdict(grader)}
    if isinstance(grader, MultiGrader):
        plain["graders"] = {name: grader_to_json(each) for name, each in grader.graders.items()}
    if isinstance(grader, ScoreModelGrader):
        plain["sampling_params"] = {n: v for n, v in asdict(grader.sampling_params).items() if v is not None}
    return {name: list(each) if isinstance(each, tuple) else each for name, each in plain.items() if each is not None}


def item_fields(grader: Grader) -> frozenset[str]:
    """The fields that every row of the training file must have, dotted where they are nested."""
    match grader:
        case StringCheckGrader() | TextSimilarityGrader():
            texts = [grader.input, grader.reference]
        case ScoreModelGrader():
            texts = [message.content for message in grader.input]
        case MultiGrader():
            return frozenset().union(*map(item_fields, grader.graders.values()))
        case _:
            return frozenset()
    return frozenset().union(*(Template(text).fields for text in texts))


def _build(kind: type[Grader], given: dict[str, Any]) -> Grader:
    names = [each.name for each in fields(kind)]
    for name in given:
        require(name in names, name, given[name], f"left out; a {kind.type} grader has {names}")
    for each in fields(kind):
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        require(each.name in given or has_default, each.name, None, "given")
    require_text("name", given["name"], MAX_NAME_CHARACTERS, "a name")
    return kind(**{name: _READERS.get((kind, name), _as_given)(value, name) for name, value in given.items()})


def _as_given(value: Any, parameter: str) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _messages(value: Any, parameter: str) -> tuple[GraderMessage, ...]:
    require(isinstance(value, list), parameter, value, "a list of messages")
    return tuple(GraderMessage.parse(each, f"{parameter}[{index}]") for index, each in enumerate(value))


def _sampling_params(value: Any, parameter: str) -> SamplingParams:
    names = [each.name for each in fields(SamplingParams)]
    is_known = isinstance(value, Mapping) and value.keys() <= set(names)
    require(is_known, parameter, value, f"an object of {names}")
    try:
        return SamplingParams(**value)
    except InvalidParameter as error:
        raise InvalidParameter(f"{parameter}.{error.name}", error.value, error.allowed) from error


def _range(value: Any, parameter: str) -> tuple[float, float]:
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(n) in (int, float) for n in value)
    require(is_pair, parameter, value, "two numbers, the lower one first")
    low, high = value
    return low, high


def _members(value: Any, parameter: str) -> Mapping[str, Grader]:
    require(isinstance(value, Mapping), parameter, value, "an object of graders by name")
    return {name: parse_grader(each, f"{parameter}.{name}") for name, each in value.items()}


_READERS: Mapping[tuple[type[Grader], str], Any] = {
    (ScoreModelGrader, "input"): _messages,
    (ScoreModelGrader, "range"): _range,
    (ScoreModelGrader, "sampling_params"): _sampling_params,
    (MultiGrader, "graders"): _members,
}


def _require_templates(grader: StringCheckGrader | TextSimilarityGrader) -> None:
    Template.parse(grader.input, "input")
    Template.parse(grader.reference, "reference")
