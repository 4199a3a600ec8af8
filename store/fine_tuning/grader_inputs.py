"""What a model that grades is sent: messages with templates, and how it is sampled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from proxy_model.errors import InvalidParameter
from store.fine_tuning.template import Template

GraderRole = Literal["system", "developer", "user", "assistant"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

_TEXT_PARTS = ("input_text", "output_text", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderMessage:
    """One turn of what a grading model reads; `content` is a template."""

    role: GraderRole
    content: str

    def __post_init__(self) -> None:
        roles = get_args(GraderRole)
        if self.role not in roles:
            raise InvalidParameter("role", self.role, f"one of {roles}")
        Template.parse(self.content, "content")

    @classmethod
    def parse(cls, value: object, parameter: str) -> Self:
        """From OpenAI's message object: text, or parts of text. Raises `InvalidParameter`."""
        if not isinstance(value, Mapping) or value.keys() - {"role", "content", "type"}:
            raise InvalidParameter(parameter, value, "a message of 'role' and 'content'")
        try:
            return cls(role=value.get("role"), content=_text(value.get("content")))  # type: ignore[arg-type]
        except InvalidParameter as error:
            raise InvalidParameter(f"{parameter}.{error.name}", error.value, error.allowed) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a grading model is sampled, under OpenAI's names; None leaves it to the endpoint."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_completions_tokens: int | None = None
    reasoning_effort: Effort | None = None

    def __post_init__(self) -> None:
        _require_between("temperature", self.temperature, 0, 2)
        _require_between("top_p", self.top_p, 0, 1)
        _require_between("seed", self.seed, -(2**63), 2**63 - 1, kinds=(int,))
        _require_between("max_completions_tokens", self.max_completions_tokens, 1, 1 << 20, kinds=(int,))
        efforts = get_args(Effort)
        if self.reasoning_effort is not None and self.reasoning_effort not in efforts:
            raise InvalidParameter("reasoning_effort", self.reasoning_effort, f"one of {efforts}")


def _require_between(
    name: str, value: float | None, low: float, high: float, kinds: tuple[type, ...] = (int, float)
) -> None:
    if value is not None and (type(value) not in kinds or not low <= value <= high):
        raise InvalidParameter(name, value, f"{'a whole number' if kinds == (int,) else 'a number'} in [{low}, {high}]")


def _text(content: Any) -> str:
    """The text of a message's content; images and sound are refused. Raises `InvalidParameter`."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _text_of_part(part) for part in parts]
    return "\n".join(texts)


def _text_of_part(part: Any) -> str:
    is_text = isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)
    if not is_text:
        raise InvalidParameter("content", part, f"text, or parts of text with a type of {_TEXT_PARTS}")
    return str(part["text"])
