"""One answer as an evaluation keeps it, and all answers of one system."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from proxy_model.decoding.request import Finished, PositionDecisions
from trainer.evaluation.origin import Origin
from trainer.evaluation.system_name import Decision, Kind
from trainer.evaluation.systems import System


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownToken:
    """One position of an answer that a report shows with its decisions."""

    text: str
    rejected: tuple[str, ...]
    """The candidates that were refused for it, in the order offered."""

    is_forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One system's answer to one prompt."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    rejected: int
    forced: int
    passes: float
    """LLM passes after the prompt; of best-of-n, those of all n samples."""

    seconds: float
    """Of its batch, divided among the batch's answers."""

    gaps: tuple[float, ...] = ()
    """Milliseconds between its tokens, with the batch running beside it; empty where nothing can be streamed."""

    first_token: float | None = None
    """Milliseconds from the step that begins to read its prompt to its first token, likewise; None where nothing can
    be streamed, or an earlier version did not note it."""

    tokens: tuple[ShownToken, ...] = ()
    """Of the first prompts only."""

    @classmethod
    def of(
        cls,
        finished: Finished,
        seconds: float,
        first_token: float,
        gaps: Sequence[float],
        decisions: Sequence[PositionDecisions],
    ) -> Self:
        """What the engine gave."""
        usage = finished.usage
        return cls(
            text=finished.text,
            token_ids=finished.token_ids,
            finish_reason=finished.finish_reason,
            rejected=usage.rejected,
            forced=usage.forced,
            passes=usage.passes,
            seconds=seconds,
            gaps=tuple(round(gap, 2) for gap in gaps),
            first_token=round(first_token, 2),
            tokens=tuple(_shown(position) for position in decisions),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises `KeyError` and `TypeError` for anything else."""
        shown = tuple(
            ShownToken(text=each["text"], rejected=tuple(each["rejected"]), is_forced=each["is_forced"])
            for each in found["tokens"]
        )
        changes = {"token_ids": tuple(found["token_ids"]), "gaps": tuple(found["gaps"]), "tokens": shown}
        return cls(**{**found, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFacts:
    """What a table and a report say of a system beside its answers."""

    name: str
    kind: Kind
    policy: str | None = None
    """Digest of the weights."""

    p_t: float | None = None
    temperature: float = 0.0
    """SKAM's for a proxy, the LLM's for its samples; 0 is greedy."""

    top_p: float | None = None
    """Likewise; None where an earlier version did not note it."""

    decision: Decision = "greedy"
    target_return: float | None = None
    """What a conditioned proxy aims at."""

    origin: Origin | None = None

    @classmethod
    def of(cls, system: System) -> Self:
        """The facts of a loaded system."""
        skam = system.skam if system.kind == "proxy" else None
        return cls(
            name=system.name,
            kind=system.kind,
            policy=system.identity["policy"] if system.kind == "proxy" else None,
            p_t=None if skam is None else skam.p_t,
            temperature=system.temperature if skam is None else skam.temperature,
            top_p=system.top_p if skam is None else skam.top_p,
            decision=system.decision,
            target_return=system.target_return,
            origin=system.origin,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        origin = found["origin"]
        return cls(**{**found, "origin": None if origin is None else Origin(**origin)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One system's answers, in the order of the prompts."""

    key: str
    """Digest of everything that they depend on."""

    facts: SystemFacts
    items: tuple[Answer, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(each.token_ids) for each in self.items)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.items)

    @property
    def accept_rate(self) -> float | None:
        """Every position ends with one accept, free or forced; every reject was free. None where no proxy decides."""
        rejected = sum(each.rejected for each in self.items)
        accepted = self.num_tokens - sum(each.forced for each in self.items)
        return accepted / (accepted + rejected) if self.has_proxy and accepted + rejected else None

    @property
    def has_proxy(self) -> bool:
        """Whether the tokens went through accept and reject."""
        return self.facts.kind in ("proxy", "random", "accept-all")


def _shown(position: PositionDecisions) -> ShownToken:
    *rejected, accepted = position.candidates
    return ShownToken(
        text=accepted.text, rejected=tuple(each.text for each in rejected), is_forced=not accepted.is_free
    )
