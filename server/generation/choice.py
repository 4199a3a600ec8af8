"""One of a request's answers as it grows: what its next step shows, and its totals."""

from dataclasses import dataclass

from proxy_model.decoding.request import Delta, PositionDecisions, TokenLogprob
from server.errors import internal
from server.generation.token_text import TokenTexts
from server.schemas.report import Candidate, ChoiceProxy, FinishReason, Position


@dataclass(frozen=True, slots=True)
class TextToken:
    """A token and the part of the text that it stands for; an end token stands for none."""

    logprob: TokenLogprob
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """What a delta shows."""

    text: str
    tokens: list[TextToken]
    """Their texts join to the text. Empty unless log-probabilities were asked for."""

    decisions: list[Position]


class GrowingChoice:
    """Feed it deltas until `finish_reason` is set."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: FinishReason | None = None
        self.num_cached = 0
        self.num_accepted = 0
        self.num_rejected = 0
        self.num_forced = 0
        self.num_drafted = 0
        """Of tokens ahead of the answer, right or wrong; known at its end, like those that were right."""

        self.num_accepted_drafts = 0
        self._tokens: TokenTexts[TokenLogprob] = TokenTexts()
        self._decisions: TokenTexts[PositionDecisions] = TokenTexts()

    def add(self, delta: Delta) -> Step:
        """What `delta` shows. Raises `ApiError` if the answer broke."""
        if delta.finish_reason in ("error", "abort"):
            raise internal(delta.error)
        self.num_cached += delta.num_cached
        self.num_accepted += delta.num_accepted
        self.num_rejected += delta.num_rejected
        self.num_forced += delta.num_forced
        if delta.usage is not None:
            self.num_drafted = delta.usage.drafted_tokens
            self.num_accepted_drafts = delta.usage.accepted_drafts
        self.finish_reason = "length" if delta.finish_reason == "length" else "stop" if delta.finish_reason else None
        return Step(delta.text, self._shown_tokens(delta), self._shown_decisions(delta))

    def proxy(self, decisions: list[Position] | None) -> ChoiceProxy:
        """What the proxy did in this choice so far."""
        return ChoiceProxy(
            accepted=self.num_accepted, rejections=self.num_rejected, forced=self.num_forced, decisions=decisions
        )

    def _shown_tokens(self, delta: Delta) -> list[TextToken]:
        """All but those that a stop string took along."""
        is_last = delta.finish_reason is not None
        shown = self._tokens.add(((entry, entry.bytes) for entry in delta.logprobs), delta.text, is_last=is_last)
        while is_last and shown and shown[-1][0].bytes and not shown[-1][1]:
            shown.pop()
        return [TextToken(entry, text) for entry, text in shown]

    def _shown_decisions(self, delta: Delta) -> list[Position]:
        """Every token's, in the end: those of an end token and of a stop string have no text."""
        entries = ((position, position.accepted.bytes) for position in delta.decisions)
        shown = self._decisions.add(entries, delta.text, is_last=delta.finish_reason is not None)
        return [_position(position, text) for position, text in shown]


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


def finite(logprob: float) -> float:
    """OpenAI's number for an impossible token; JSON has no infinity."""
    return max(logprob, -9999.0)
