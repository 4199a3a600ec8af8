"""From an accepted token to the delta that the client sees."""

from dataclasses import dataclass

from torch import Tensor

from proxy_model.decode import Decided
from proxy_model.frozen_llm import FrozenLLM
from proxy_model.request import CandidateDecision, Delta, PositionDecisions, TokenLogprob
from proxy_model.sequence import Sequence

_SCORED_ROWS = 32
"""Prompt tokens whose log-probabilities over the whole vocabulary are in memory at once."""


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


class Emitter:
    """Notes accepted tokens in their sequences and words the deltas."""

    def __init__(self, llm: FrozenLLM) -> None:
        self._llm = llm
        self._tokenizer = llm.tokenizer
        self._end_token_ids = llm.end_token_ids
        self._bytes: dict[int, bytes] = {}

    def accept(self, sequence: Sequence, position: AcceptedPosition) -> Delta:
        """Append the token; the last delta of an answer carries its totals."""
        token, params = position.token, sequence.request.params
        is_end = sequence.ends_with(token, self._end_token_ids)
        sequence.accept(token)
        text = sequence.detokenizer.add(b"" if is_end else self._token_bytes(token))
        is_proxied = sequence.proxy is not None
        sequence.num_rejected += position.rank
        sequence.num_forced += position.is_forced and is_proxied
        self._record(sequence, position)
        finish_reason = sequence.finish_reason_after(token, self._end_token_ids)
        if finish_reason is not None:
            text += sequence.detokenizer.finish()
        recorder = sequence.recorder if finish_reason is not None else None
        return Delta(
            request_id=sequence.request.id,
            text=text,
            token_ids=(token,),
            logprobs=() if params.top_logprobs is None else (self._logprob(position, params.top_logprobs),),
            prompt_logprobs=tuple(sequence.prompt_logprobs) if len(sequence.output) == 1 else (),
            decisions=(self._decisions(position),) if params.return_decisions and is_proxied else (),
            num_accepted=1,
            num_rejected=position.rank,
            num_forced=int(position.is_forced and is_proxied),
            finish_reason=finish_reason,
            usage=None if finish_reason is None else sequence.usage(),
            trajectory=None
            if recorder is None or finish_reason is None
            else recorder.finish(sequence.request.prompt_token_ids, tuple(sequence.output), finish_reason),
        )

    def score_prompt(self, sequence: Sequence, offset: int, states: Tensor) -> None:
        """Note the log-probabilities of the tokens that follow prompt tokens `offset` onwards, whose h is `states`."""
        num_top = sequence.request.params.prompt_logprobs
        if num_top is None:
            return
        targets = sequence.request.prompt_token_ids[offset + 1 : offset + 1 + states.shape[0]]
        for start in range(0, len(targets), _SCORED_ROWS):
            tokens = targets[start : start + _SCORED_ROWS]
            logprobs = self._llm.logits(states[start : start + len(tokens)]).log_softmax(-1)
            sequence.prompt_logprobs += [
                self._worded(row, token, num_top) for row, token in zip(logprobs, tokens, strict=True)
            ]

    def read_only(self, sequence: Sequence) -> Delta:
        """The one delta of a request without an answer."""
        return Delta(
            request_id=sequence.request.id,
            prompt_logprobs=tuple(sequence.prompt_logprobs),
            finish_reason="length",
            usage=sequence.usage(),
        )

    def fail(self, sequence: Sequence, error: str) -> Delta:
        """The last delta of an answer that cannot go on."""
        return Delta(request_id=sequence.request.id, finish_reason="error", error=error, usage=sequence.usage())

    def _record(self, sequence: Sequence, position: AcceptedPosition) -> None:
        if sequence.recorder is not None:
            slate, row = position.decided.slate, position.row
            columns = (slate.tokens[row], slate.logprobs[row], slate.is_candidate[row], slate.is_free[row])
            sequence.recorder.add_position(position.hidden, columns, position.decided.accept_logits[row], position.rank)

    def _logprob(self, position: AcceptedPosition, num_top: int) -> TokenLogprob:
        """Under the LLM at temperature 1, before processors and proxy."""
        assert position.logits is not None
        return self._worded(position.logits.log_softmax(-1), position.token, num_top)

    def _worded(self, logprobs: Tensor, token: int, num_top: int) -> TokenLogprob:
        """`token` and the likeliest ones of `logprobs` (V,)."""
        top = logprobs.topk(num_top) if num_top else None
        likeliest = () if top is None else tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        return TokenLogprob(
            token,
            self._text(token),
            self._token_bytes(token),
            float(logprobs[token]),
            tuple((other, self._text(other), self._token_bytes(other), value) for other, value in likeliest),
        )

    def _decisions(self, position: AcceptedPosition) -> PositionDecisions:
        """The candidates that were seen: the rejected ones and the accepted one."""
        slate, row, end = position.decided.slate, position.row, position.rank + 1
        columns = zip(
            slate.tokens[row, :end].tolist(),
            slate.logprobs[row, :end].exp().tolist(),
            position.decided.accept_logits[row, :end].sigmoid().tolist(),
            slate.is_free[row, :end].tolist(),
            strict=True,
        )
        return PositionDecisions(
            tuple(
                CandidateDecision(
                    token_id=token,
                    text=self._text(token),
                    bytes=self._token_bytes(token),
                    prob=prob,
                    accept_prob=accept_prob if is_free else None,
                    is_free=is_free,
                    is_accepted=index == position.rank,
                )
                for index, (token, prob, accept_prob, is_free) in enumerate(columns)
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
