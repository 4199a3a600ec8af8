"""What was decided at a position, on its way back over vLLM's channel for log-probabilities.

vLLM carries, for every token that it hands out and for no other, a row of (token id, number) pairs and one integer, and
keeps their order. So the counts of a request are exact: the rows of unfinished prompts, which vLLM drops, drop with
them. The integer is the number of rejections. Pair 0 is the token and its marks; the others say what they are in the
upper bits of their id, since vLLM lets an id stand only once in a row. `SamplingParams.logprobs` of a request is the
number of pairs after the first that it asks for; a row may hold more, which vLLM cuts off.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, nan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from proxy_model.decision.choice import Decided
from proxy_model.decision.trajectory import TrajectoryRecorder
from proxy_model.decoding.emit import Scored, SeenCandidate
from proxy_model.decoding.request import SamplingParams

_KIND_BITS = 20
MAX_VOCABULARY = 1 << _KIND_BITS
"""Token ids must be below."""

_CANDIDATE, _VERDICT, _CHOSEN, _LIKELIEST, _PADDING = (kind << _KIND_BITS for kind in range(1, 6))
_FORCED, _FAILED = 1, 2


@dataclass(frozen=True, slots=True)
class Report:
    """B rows of W pairs."""

    ids: Int[Tensor, "B W"]
    numbers: Float[Tensor, "B W"]
    ranks: Int[Tensor, " B"]


def num_pairs(params: SamplingParams, *, is_proxied: bool, width: int) -> int:
    """How many pairs a request needs after the first; `width` is the slates' K."""
    num_scores = 0 if params.top_logprobs is None else 1 + params.top_logprobs
    return num_scores + (2 * width if params.return_decisions and is_proxied else 0)


def max_pairs(width: int, max_top_logprobs: int) -> int:
    """The most that `num_pairs` says."""
    return 1 + max_top_logprobs + 2 * width


def new_report(tokens: Int[Tensor, " B"], decided: Decided | None, index: Tensor, num_columns: int) -> Report:
    """Rows of `tokens` (B,); those at `index` were decided, the others are never read."""
    ids = torch.full((tokens.shape[0], num_columns), _PADDING, dtype=torch.int32, device=tokens.device)
    numbers = torch.zeros(ids.shape, device=tokens.device)
    ranks = torch.zeros_like(tokens)
    ids[:, 0] = tokens.int()
    if decided is not None:
        numbers[index, 0] = decided.choice.is_forced.float() * _FORCED
        ranks[index] = decided.choice.ranks
    return Report(ids, numbers, ranks)


def mark_failed(report: Report, row: int) -> None:
    """The row's form for its answer cannot be followed any more."""
    report.numbers[row, 0] += _FAILED


def add_scores(report: Report, row: int, token: int, logits: Float[Tensor, " V"], num_top: int) -> None:
    """Log-probabilities under the LLM, of `token` and of the likeliest ones."""
    logprobs = logits.log_softmax(-1)
    report.ids[row, 1], report.numbers[row, 1] = _CHOSEN, logprobs[token]
    if num_top:
        top = logprobs.topk(num_top)
        report.ids[row, 2 : 2 + num_top] = (top.indices + _LIKELIEST).int()
        report.numbers[row, 2 : 2 + num_top] = top.values


def add_slate(report: Report, row: int, first: int, decided: Decided, decided_row: int) -> None:
    """The slate from pair `first` on: K candidates with log-probabilities, K verdicts with accept logits."""
    slate = decided.slate
    width = slate.tokens.shape[1]
    index = torch.arange(width, device=slate.tokens.device)
    candidates, verdicts = slice(first, first + width), slice(first + width, first + 2 * width)
    report.ids[row, candidates] = (slate.tokens[decided_row] + _CANDIDATE).int()
    report.numbers[row, candidates] = slate.logprobs[decided_row]
    report.ids[row, verdicts] = (2 * index + slate.is_free[decided_row] + _VERDICT).int()
    report.numbers[row, verdicts] = decided.accept_logits[decided_row].nan_to_num(0.0)


@dataclass(frozen=True, slots=True)
class ReportedPosition:
    """A position as a worker has told it; a `Position` for the emitter."""

    token: int
    rank: int
    is_forced: bool
    has_failed: bool
    """Its form became too complex; there is no token."""

    pairs: Sequence[tuple[int, float]]

    def scored(self, num_top: int) -> Scored:
        """Before processors and proxy."""
        chosen = next((number for _, number in self._of(_CHOSEN)), nan)
        return Scored(chosen, tuple(self._of(_LIKELIEST))[:num_top])

    def seen(self) -> Iterable[SeenCandidate]:
        """From the slate."""
        pairs = zip(self._of(_CANDIDATE), self._of(_VERDICT), strict=True)
        for (token, logprob), (verdict, accept_logit) in list(pairs)[: self.rank + 1]:
            yield SeenCandidate(token, exp(logprob), _sigmoid(accept_logit), bool(verdict & 1))

    def record(self, recorder: TrajectoryRecorder) -> None:
        """Hidden states stay in the worker."""
        raise NotImplementedError("an answer cannot be recorded over vLLM")

    def _of(self, kind: int) -> list[tuple[int, float]]:
        return [(found - kind, number) for found, number in self.pairs if found >> _KIND_BITS == kind >> _KIND_BITS]


def read_position(ids: Sequence[int], numbers: Sequence[float], rank: int) -> ReportedPosition:
    """One row again."""
    marks = int(numbers[0])
    return ReportedPosition(
        token=ids[0],
        rank=rank,
        is_forced=bool(marks & _FORCED),
        has_failed=bool(marks & _FAILED),
        pairs=tuple(zip(ids[1:], numbers[1:], strict=True)),
    )


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + exp(-logit)) if logit >= 0 else exp(logit) / (1.0 + exp(logit))
