"""The walk of `candidate` and `both` features: the LLM reads candidates, then the proxy decides on them in order.

An accepted candidate's own pass yields the next logits. So where the LLM reads one candidate at a time, only rejected
ones cost a pass, and where it reads several side by side (`Branches`), only those beyond them. A version scores what
all its sequences have read in one call, candidates behind the accepted one included.
"""

import math
from collections.abc import Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy_model.decision.bank import LoadedProxy
from proxy_model.decision.choice import Decided
from proxy_model.decoding.decode import by_proxy, target_of
from proxy_model.decoding.emit import AcceptedPosition
from proxy_model.decoding.sequence import PendingCandidate, Sequence
from proxy_model.llm.branches import Branches
from proxy_model.transfer import to_device


@dataclass(frozen=True, slots=True)
class Reading:
    """The next candidates of a sequence, in order, and the rows of the step in which the LLM has read them."""

    sequence: Sequence
    pending: PendingCandidate
    """The first of them."""

    rows: list[int]


def propose(rows: Iterable[tuple[int, Sequence]], states: Tensor, logits: Tensor, decided: Decided) -> None:
    """Put the first candidates of the slates of `rows` up for decision, after h(prefix) `states` (B, D)."""
    tokens, is_free = decided.slate.tokens.tolist(), decided.slate.is_free.tolist()
    for row, sequence in rows:
        sequence.pending = PendingCandidate(states, logits, decided, row, tokens[row], is_free[row])


def readings_of(decoding: Rows[Sequence], branches: Branches) -> list[Reading]:
    """What a step has read for the sequences whose token is not settled."""
    return [
        Reading(sequence, sequence.pending, [branches.row_of(slot, place) for place in range(branches.widths[slot])])
        for slot, sequence in enumerate(decoding)
        if sequence.pending is not None
    ]


def judge(readings: Rows[Reading], hidden: Tensor) -> list[int | None]:
    """Decide on what each sequence has read, candidate by candidate, from the step's states `hidden` (N, D).

    Returns which of them is accepted. None if none is: then those behind them are up.
    """
    logits: dict[int, float] = {}
    for proxy, members in by_proxy([reading.sequence for reading in readings]).items():
        logits |= _accept_logits(proxy, [readings[member] for member in members], hidden)
    return [_first_accepted(reading, logits, hidden) for reading in readings]


def take_accepted(sequence: Sequence) -> AcceptedPosition:
    """The candidate that `judge` has accepted."""
    pending, sequence.pending = sequence.pending, None
    assert pending is not None
    index, row, decided = pending.index, pending.row, pending.decided
    if sequence.keeps_decisions:
        decided.accept_logits[row, : index + 1] = torch.tensor(pending.accept_logits)
    return AcceptedPosition(
        token=pending.tokens[index],
        rank=index,
        is_forced=not pending.is_free[index],
        hidden=pending.states[row],
        logits=pending.logits[row],
        decided=decided,
        row=row,
    )


def _accept_logits(proxy: LoadedProxy, readings: Rows[Reading], hidden: Tensor) -> dict[int, float]:
    """What a version says of its sequences' candidates, by the rows in which they were read."""
    rows = [row for reading in readings for row in reading.rows]
    ranks = [reading.pending.index + place for reading in readings for place in range(len(reading.rows))]
    owners = [reading for reading in readings for _ in reading.rows]
    slates = [(reading.pending.decided.slate, reading.pending.row) for reading in owners]
    vectors = [hidden[to_device(torch.tensor(rows), hidden.device)]]
    if proxy.policy.actor.reads_prefix:
        vectors.insert(0, torch.stack([reading.pending.states[reading.pending.row] for reading in owners]))
    found = proxy.scorer.candidate_logits(
        vectors,
        torch.stack([slate.logprobs[row] for slate, row in slates]),
        torch.stack([slate.is_candidate[row] for slate, row in slates]),
        to_device(torch.tensor(ranks), hidden.device),
        target_of(proxy, [reading.sequence for reading in owners], hidden.device),
    )
    return dict(zip(rows, found.tolist(), strict=True))


def _first_accepted(reading: Reading, logits: dict[int, float], hidden: Tensor) -> int | None:
    """Walk down the candidates to the first one that is accepted; each rejected one makes way for the next."""
    sequence, pending = reading.sequence, reading.pending
    for place, row in enumerate(reading.rows):
        if sequence.recorder is not None:
            sequence.recorder.add_candidate(hidden[row])
        pending.accept_logits.append(logits[row])
        if not pending.is_free[pending.index] or logits[row] > _threshold(sequence):
            return place
        pending.index += 1
    return None


def _threshold(sequence: Sequence) -> float:
    """The logit above which the next candidate is accepted: pi(accept) is above one half, or above what is drawn."""
    if sequence.request.params.decision != "sample":
        return 0.0
    uniform = float(torch.rand((), generator=sequence.generator))
    return math.log(uniform / (1.0 - uniform)) if uniform else -math.inf
