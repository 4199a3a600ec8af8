"""What a job is to do: the LLM, the method with its settings and grader, and what becomes of the result."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from proxy_model.aliases import Aliases
from proxy_model.errors import InvalidParameter
from proxy_model.proxy_name import is_proxy_name
from store.fine_tuning.graders import Grader, grader_to_json, parse_grader
from store.fine_tuning.hyperparameters import Hyperparameters
from store.fine_tuning.require import require

MethodName = Literal["reinforcement"]
METHODS: tuple[MethodName, ...] = ("reinforcement",)
"""What can be ordered. `supervised` and `dpo` are not among them yet: they learn from answers that are given."""

MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a proxy learns."""

    type: MethodName
    hyperparameters: Hyperparameters
    grader: Grader

    @classmethod
    def parse(cls, value: object) -> Self:
        """From OpenAI's `method` object. Raises `InvalidParameter` with the dotted name."""
        require(isinstance(value, Mapping), "method", value, f"an object with a type, one of {METHODS}")
        assert isinstance(value, Mapping)
        kind = value.get("type")
        require(kind in METHODS, "method.type", kind, f"one of {METHODS}")
        others = sorted(value.keys() - {"type", kind})
        require(not others, f"method.{others[0] if others else ''}", None, f"left out of a method of type {kind!r}")
        body = value.get(kind)
        place = f"method.{kind}"
        require(isinstance(body, Mapping), place, body, "an object with a grader and maybe hyperparameters")
        assert isinstance(body, Mapping)
        unknown = sorted(body.keys() - {"grader", "hyperparameters"})
        require(not unknown, f"{place}.{unknown[0] if unknown else ''}", None, "left out: there is no such setting")
        return cls(
            type="reinforcement",
            hyperparameters=Hyperparameters.parse(body.get("hyperparameters") or {}, f"{place}.hyperparameters"),
            grader=parse_grader(body.get("grader"), f"{place}.grader"),
        )

    def to_json(self) -> dict[str, Any]:
        """The inverse of `parse`, `auto` filled in."""
        body = {"grader": grader_to_json(self.grader), "hyperparameters": self.hyperparameters.to_json()}
        return {"type": self.type, self.type: body}


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """Everything that a job's result depends on, besides its files. Raises `InvalidParameter`."""

    llm: str
    """The frozen LLM's name, as the server spells it."""

    llm_source: str
    """What the trainer loads it from: a name, hub id, folder or GGUF file."""

    method: Method
    proxy: str
    """Name that its versions are published under."""

    alias: str = "stable"
    """What the versions are called when they are published."""

    start: str | None = None
    """`name@version` of the proxy whose weights it starts from. None: new weights."""

    seed: int

    def __post_init__(self) -> None:
        require(is_proxy_name(self.proxy), "suffix", self.proxy, "of a-z, 0-9, '.', '_' and '-', not 'base'")
        try:
            Aliases().assigned([self.alias], 1)
        except InvalidParameter as error:
            raise InvalidParameter("proxy.alias", error.value, error.allowed) from error
        require(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"in [0, {MAX_SEED}]")

    @property
    def model(self) -> str:
        """The name under which requests reach the result."""
        return f"{self.llm}:{self.proxy}" if self.alias == "stable" else f"{self.llm}:{self.proxy}@{self.alias}"

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {**asdict(self), "method": self.method.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises `InvalidParameter`."""
        return cls(**{**value, "method": Method.parse(value["method"])})
