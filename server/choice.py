"""One of a request's answers as it grows: what its next step shows, and its totals."""

from dataclasses import dataclass

from proxy_model.request import Delta, PositionDecisions
from proxy_model.request import Usage as EngineUsage
from server.errors import ApiError, internal
from server.schemas.chat_response import TokenLogprob
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
        self._token_texts = TokenTexts()

    def add(self, delta: Delta) -> Step:
        """What `delta` shows. Raises `ApiError` if the answer broke."""
        if delta.finish_reason in ("error", "abort"):
            raise broken(delta)
        self.num_accepted += delta.num_accepted
        self.num_rejected += delta.num_rejected
        self.num_forced += delta.num_forced
        self.finish_reason = "length" if delta.finish_reason == "length" else "stop" if delta.finish_reason else None
        self.usage = delta.usage or self.usage
        logprobs = self._token_texts.add(delta.logprobs, delta.text, is_last=delta.finish_reason is not None)
        return Step(delta.text, logprobs, [_position(position) for position in delta.decisions])

    def proxy(self, decisions: list[Position] | None) -> ChoiceProxy:
        """What the proxy did in this choice so far."""
        return ChoiceProxy(
            accepted=self.num_accepted, rejections=self.num_rejected, forced=self.num_forced, decisions=decisions
        )


def broken(delta: Delta) -> ApiError:
    """The error of an answer that the engine could not finish."""
    error = internal()
    error.message = delta.error or error.message
    return error


def _position(position: PositionDecisions) -> Position:
    return Position(
        candidates=[
            Candidate(
                token_id=candidate.token_id,
                token=candidate.text,
                prob=candidate.prob,
                accept_prob=candidate.accept_prob,
                is_free=candidate.is_free,
                is_accepted=candidate.is_accepted,
            )
            for candidate in position.candidates
        ]
    )
