"""From an accepted token to the delta that the client sees."""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from proxy_model.decision.choice import Decided
from proxy_model.decision.trajectory import TrajectoryRecorder
from proxy_model.decoding.request import CandidateDecision, Delta, PositionDecisions, TokenLogprob
from proxy_model.decoding.sequence import Sequence
from proxy_model.llm.tokenizer import ChatTokenizer

_SCORED_ROWS = 32
"""Prompt tokens whose log-probabilities over the whole vocabulary are in memory at once."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A token's log-probability and those of the likeliest tokens, under the LLM at temperature 1."""

    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SeenCandidate:
    """A candidate that was offered: the numbers of `CandidateDecision`."""

    token: int
    prob: float
    accept_prob: float
    """NaN or meaningless where the proxy was not asked."""

    is_free: bool


@runtime_checkable
class Position(Protocol):
    """A position whose token is settled, wherever the step ran."""

    @property
    def token(self) -> int: ...

    @property
    def rank(self) -> int:
        """Rejections before it."""

    @property
    def is_forced(self) -> bool: ...

    def scored(self, num_top: int) -> Scored:
        """Asked only if the request wants log-probabilities."""

    def seen(self) -> Iterable[SeenCandidate]:
        """The rejected candidates and the accepted one; asked only if the request wants decisions."""

    def record(self, recorder: TrajectoryRecorder) -> None:
        """Asked only if the request is recorded."""


@dataclass(frozen=True, slots=True)
class AcceptedPosition:
    """A position whose token is settled: row `row` of a step's outcome."""

    token: int
    rank: int
    is_forced: bool
    hidden: Tensor
    """(D,) h(prefix)."""

    logits: Tensor | None
    """(V,) of the LLM, before any processor; needed for log-probabilities only."""

    decided: Decided
    row: int

    def scored(self, num_top: int) -> Scored:
        """Before processors and proxy."""
        assert self.logits is not None
        return scored(self.logits.log_softmax(-1), self.token, num_top)

    def seen(self) -> Iterable[SeenCandidate]:
        """From the slate."""
        slate, row, end = self.decided.slate, self.row, self.rank + 1
        return map(
            SeenCandidate,
            slate.tokens[row, :end].tolist(),
            slate.logprobs[row, :end].exp().tolist(),
            self.decided.accept_logits[row, :end].sigmoid().tolist(),
            slate.is_free[row, :end].tolist(),
        )

    def record(self, recorder: TrajectoryRecorder) -> None:
        """With its features."""
        slate, row = self.decided.slate, self.row
        columns = (slate.tokens[row], slate.logprobs[row], slate.is_candidate[row], slate.is_free[row])
        recorder.add_position(self.hidden, columns, self.decided.accept_logits[row], self.rank)


def scored(logprobs: Tensor, token: int, num_top: int) -> Scored:
    """`token` and the `num_top` likeliest ones of `logprobs` (V,)."""
    top = logprobs.topk(num_top) if num_top else None
    likeliest = () if top is None else tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Scored(float(logprobs[token]), likeliest)


class Emitter:
    """Notes accepted tokens in their sequences and words the deltas."""

    def __init__(self, tokenizer: ChatTokenizer, end_token_ids: AbstractSet[int]) -> None:
        self._tokenizer = tokenizer
        self._end_token_ids = frozenset(end_token_ids)
        self._bytes: dict[int, bytes] = {}

    def accept(self, sequence: Sequence, position: Position) -> Delta:
        """Append the token; the last delta of an answer carries its totals."""
        token, params = position.token, sequence.request.params
        is_end = sequence.ends_with(token, self._end_token_ids)
        sequence.accept(token)
        text = sequence.detokenizer.add(b"" if is_end else self._token_bytes(token))
        is_proxied = sequence.request.proxy is not None
        sequence.num_rejected += position.rank
        sequence.num_forced += position.is_forced and is_proxied
        if sequence.recorder is not None:
            position.record(sequence.recorder)
        finish_reason = sequence.finish_reason_after(token, self._end_token_ids)
        if finish_reason is not None:
            text += sequence.detokenizer.finish()
        recorder = sequence.recorder if finish_reason is not None else None
        return Delta(
            request_id=sequence.request.id,
            text=text,
            token_ids=(token,),
            logprobs=() if params.top_logprobs is None else (self.worded(token, position.scored(params.top_logprobs)),),
            prompt_logprobs=tuple(sequence.prompt_logprobs) if len(sequence.output) == 1 else (),
            decisions=(self._decisions(position),) if params.return_decisions and is_proxied else (),
            num_cached=sequence.num_restored if len(sequence.output) == 1 else 0,
            num_accepted=1,
            num_rejected=position.rank,
            num_forced=int(position.is_forced and is_proxied),
            finish_reason=finish_reason,
            usage=None if finish_reason is None else sequence.usage(),
            trajectory=None
            if recorder is None or finish_reason is None
            else recorder.finish(sequence.request.prompt_token_ids, tuple(sequence.output), finish_reason),
        )

    def score_prompt(
        self, sequence: Sequence, offset: int, states: Tensor, logits_of: Callable[[Tensor], Tensor]
    ) -> None:
        """Note the log-probabilities of the tokens that follow prompt tokens `offset` onwards, whose h is `states`."""
        num_top = sequence.request.params.prompt_logprobs
        if num_top is None:
            return
        targets = sequence.request.prompt_token_ids[offset + 1 : offset + 1 + states.shape[0]]
        for start in range(0, len(targets), _SCORED_ROWS):
            tokens = targets[start : start + _SCORED_ROWS]
            logprobs = logits_of(states[start : start + len(tokens)]).log_softmax(-1)
            sequence.prompt_logprobs += [
                self.worded(token, scored(row, token, num_top)) for row, token in zip(logprobs, tokens, strict=True)
            ]

    def read_only(self, sequence: Sequence) -> Delta:
        """The one delta of a request without an answer."""
        return Delta(
            request_id=sequence.request.id,
            prompt_logprobs=tuple(sequence.prompt_logprobs),
            num_cached=sequence.num_restored,
            finish_reason="length",
            usage=sequence.usage(),
        )

    def fail(self, sequence: Sequence, error: str) -> Delta:
        """The last delta of an answer that cannot go on."""
        return Delta(request_id=sequence.request.id, finish_reason="error", error=error, usage=sequence.usage())

    def worded(self, token: int, scores: Scored) -> TokenLogprob:
        """With the texts of the tokens."""
        return TokenLogprob(
            token,
            self._text(token),
            self._token_bytes(token),
            scores.logprob,
            tuple((other, self._text(other), self._token_bytes(other), value) for other, value in scores.likeliest),
        )

    def _decisions(self, position: Position) -> PositionDecisions:
        """The candidates that were seen: the rejected ones and the accepted one."""
        return PositionDecisions(
            tuple(
                CandidateDecision(
                    token_id=seen.token,
                    text=self._text(seen.token),
                    bytes=self._token_bytes(seen.token),
                    prob=seen.prob,
                    accept_prob=seen.accept_prob if seen.is_free else None,
                    is_free=seen.is_free,
                    is_accepted=index == position.rank,
                )
                for index, seen in enumerate(position.seen())
            )
        )

    def _token_bytes(self, token: int) -> bytes:
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = self._tokenizer.token_bytes(token)
        return found

    def _text(self, token: int) -> str:
        """A token alone, as text: broken UTF-8 shows as U+FFFD, an end token by its name."""
        return self._token_bytes(token).decode("utf-8", "replace") or self._tokenizer.token_name(token)
