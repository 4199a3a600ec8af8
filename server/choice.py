"""One of a request's answers as it grows: what its next step shows, and its totals."""

from collections.abc import Iterable
from dataclasses import dataclass

from proxy_model.request import Delta, PositionDecisions
from proxy_model.request import TokenLogprob as EngineLogprob
from proxy_model.request import Usage as EngineUsage
from server.errors import ApiError, internal
from server.schemas.chat_response import TokenLogprob, TopLogprob
from server.schemas.report import Candidate, ChoiceProxy, FinishReason, Position
from server.token_text import TokenTexts


@dataclass(frozen=True, slots=True)
class Step:
    """What a delta shows."""

    text: str
    logprobs: list[TokenLogprob]
    decisions: list[Position]

    def __bool__(self) -> bool:
        return bool(self.text or self.logprobs or self.decisions)


class GrowingChoice:
    """Feed it deltas until `finish_reason` is set."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: FinishReason | None = None
        self.usage: EngineUsage | None = None
        self.num_accepted = 0
        self.num_rejected = 0
        self.num_forced = 0
        self._logprobs: TokenTexts[EngineLogprob] = TokenTexts()
        self._decisions: TokenTexts[PositionDecisions] = TokenTexts()

    def add(self, delta: Delta) -> Step:
        """What `delta` shows. Raises `ApiError` if the answer broke."""
        if delta.finish_reason in ("error", "abort"):
            raise broken(delta)
        self.num_accepted += delta.num_accepted
        self.num_rejected += delta.num_rejected
        self.num_forced += delta.num_forced
        self.finish_reason = "length" if delta.finish_reason == "length" else "stop" if delta.finish_reason else None
        self.usage = delta.usage or self.usage
        return Step(delta.text, self._shown_logprobs(delta), self._shown_decisions(delta))

    def proxy(self, decisions: list[Position] | None) -> ChoiceProxy:
        """What the proxy did in this choice so far."""
        return ChoiceProxy(
            accepted=self.num_accepted, rejections=self.num_rejected, forced=self.num_forced, decisions=decisions
        )

    def _shown_logprobs(self, delta: Delta) -> list[TokenLogprob]:
        """OpenAI's entries: tokens without text, and those that a stop string took along, have none."""
        is_last = delta.finish_reason is not None
        entries = ((entry, entry.bytes) for entry in delta.logprobs if entry.bytes)
        shown = self._logprobs.add(entries, delta.text, is_last=is_last)
        while is_last and shown and not shown[-1][1]:
            shown.pop()
        return [_logprob(entry, text) for entry, text in shown]

    def _shown_decisions(self, delta: Delta) -> list[Position]:
        """Every token's, in the end: those of an end token and of a stop string have no text."""
        entries = ((position, position.accepted.bytes) for position in delta.decisions)
        shown = self._decisions.add(entries, delta.text, is_last=delta.finish_reason is not None)
        return [_position(position, text) for position, text in shown]


def broken(delta: Delta) -> ApiError:
    """The error of an answer that the engine could not finish."""
    error = internal()
    error.message = delta.error or error.message
    return error


def _position(position: PositionDecisions, text: str) -> Position:
    return Position(
        text=text,
        candidates=[
            Candidate(
                token_id=candidate.token_id,
                token=candidate.text,
                bytes=list(candidate.bytes),
                prob=candidate.prob,
                accept_prob=candidate.accept_prob,
                is_free=candidate.is_free,
                is_accepted=candidate.is_accepted,
            )
            for candidate in position.candidates
        ],
    )


def _logprob(logprob: EngineLogprob, text: str) -> TokenLogprob:
    return TokenLogprob(
        token=text,
        logprob=_finite(logprob.logprob),
        bytes=list(logprob.bytes),
        top_logprobs=_top(logprob.top),
    )


def _top(top: Iterable[tuple[int, str, bytes, float]]) -> list[TopLogprob]:
    return [TopLogprob(token=name, logprob=_finite(value), bytes=list(data)) for _, name, data, value in top]


def _finite(logprob: float) -> float:
    """OpenAI's number for an impossible token; JSON has no infinity."""
    return max(logprob, -9999.0)
