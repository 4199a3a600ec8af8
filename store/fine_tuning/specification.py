"""What a job is to do: the LLM, the method with its settings and grader, and what becomes of the result."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast, get_args

from proxy_model.errors import InvalidParameter
from proxy_model.versions.aliases import Aliases
from proxy_model.versions.proxy_name import is_proxy_name
from store.fine_tuning.gates import Gates
from store.fine_tuning.graders import Grader, grader_to_json, parse_grader
from store.fine_tuning.hyperparameters import (
    DpoHyperparameters,
    Hyperparameters,
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
)
from store.fine_tuning.require import require

MethodName = Literal["supervised", "dpo", "reinforcement"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)

_HYPERPARAMETERS: Mapping[MethodName, type[Hyperparameters]] = {
    "supervised": SupervisedHyperparameters,
    "dpo": DpoHyperparameters,
    "reinforcement": ReinforcementHyperparameters,
}

MAX_SEED = 2**31 - 1

_BODIES = {True: "an object with a grader and maybe hyperparameters", False: "an object of hyperparameters"}
"""What a method has under its name, by whether there is a grader in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a proxy learns."""

    type: MethodName
    hyperparameters: Hyperparameters
    grader: Grader | None = None
    """Of `reinforcement`; the others learn from answers that are given."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """From OpenAI's `method` object. Raises `InvalidParameter` with the dotted name."""
        require(isinstance(value, Mapping), "method", value, f"an object with a type, one of {METHODS}")
        assert isinstance(value, Mapping)
        kind = value.get("type")
        require(kind in METHODS, "method.type", kind, f"one of {METHODS}")
        name = cast(MethodName, kind)
        others = sorted(value.keys() - {"type", kind})
        require(not others, f"method.{others[0] if others else ''}", None, f"left out of a method of type {kind!r}")
        place, is_graded = f"method.{kind}", kind == "reinforcement"
        body = value.get(kind) if is_graded else value.get(kind) or {}
        require(isinstance(body, Mapping), place, body, _BODIES[is_graded])
        assert isinstance(body, Mapping)
        unknown = sorted(body.keys() - ({"grader", "hyperparameters"} if is_graded else {"hyperparameters"}))
        require(not unknown, f"{place}.{unknown[0] if unknown else ''}", None, "left out: there is no such setting")
        return cls(
            type=name,
            hyperparameters=_HYPERPARAMETERS[name].parse(body.get("hyperparameters") or {}, f"{place}.hyperparameters"),
            grader=parse_grader(body.get("grader"), f"{place}.grader") if is_graded else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The inverse of `parse`, `auto` filled in."""
        body = {} if self.grader is None else {"grader": grader_to_json(self.grader)}
        return {"type": self.type, self.type: {**body, "hyperparameters": self.hyperparameters.to_json()}}


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
    gates: Gates | None = None
    """What is asked of the validation file; None: there is no such file."""

    def __post_init__(self) -> None:
        is_judged = self.gates is None or self.gates.judge is not None or self.method.grader is not None
        allowed = (
            f"given with {self.method.type}: the name of a reward model that scores the answers to 'validation_file'"
        )
        require(is_judged, "gates.judge", None, allowed)
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
        gates = None if self.gates is None else self.gates.to_json()
        return {**asdict(self), "method": self.method.to_json(), "gates": gates}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises `InvalidParameter`."""
        gates = value.get("gates")
        parsed = {"method": Method.parse(value["method"]), "gates": gates and Gates.parse(gates)}
        return cls(**{**value, **parsed})
