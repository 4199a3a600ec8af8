"""The sequential walk of `candidate` and `both` features: the LLM reads a candidate, then the proxy decides on it.

An accepted candidate's own pass yields the next logits, so only rejected candidates cost a pass.
"""

from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from proxy_model.choice import accepted_at
from proxy_model.decode import Decided
from proxy_model.emit import AcceptedPosition
from proxy_model.features import DecisionFeatures, slate_scalars, target_scalars
from proxy_model.sequence import PendingCandidate, Sequence


def propose(sequence: Sequence, hidden: Tensor, logits: Tensor, decided: Decided, row: int) -> None:
    """Put the first candidate of the row's slate up for decision, at the position after h(prefix) `hidden`."""
    slate = decided.slate[slice(row, row + 1)]
    sequence.pending = PendingCandidate(
        prefix_hidden=hidden,
        slate=slate,
        scalars=slate_scalars(slate.logprobs, slate.is_candidate)[0],
        accept_logits=torch.full_like(slate.logprobs[0], float("nan")),
        logits=logits,
        tokens=slate.tokens[0].tolist(),
        is_free=slate.is_free[0].tolist(),
    )


def take_accepted(sequence: Sequence) -> AcceptedPosition:
    """The candidate that `judge` has accepted."""
    pending, sequence.pending = sequence.pending, None
    assert pending is not None
    index = pending.index
    rank = torch.tensor([index])
    return AcceptedPosition(
        token=pending.tokens[index],
        rank=index,
        is_forced=not pending.is_free[index],
        hidden=pending.prefix_hidden,
        logits=pending.logits,
        decided=Decided(pending.slate, pending.accept_logits[None], accepted_at(rank, pending.slate)),
        row=0,
    )


def judge(hidden: Tensor, rows: Rows[Sequence]) -> list[bool]:
    """Decide on every row's pending candidate from h(prefix + candidate) (B, D); True is accept.

    Moves a row whose candidate is rejected on to its next candidate.
    """
    verdicts = []
    for row, sequence in enumerate(rows):
        pending, proxy = sequence.pending, sequence.proxy
        assert pending is not None and proxy is not None
        if sequence.recorder is not None:
            sequence.recorder.add_candidate(hidden[row])
        index = pending.index
        logit = proxy.score_candidates(_features(sequence, pending, hidden[row]))
        pending.accept_logits[index] = logit[0]
        is_accepted = not pending.is_free[index] or bool(_uniform(sequence) < torch.sigmoid(logit[0]))
        if not is_accepted:
            pending.index += 1
        verdicts.append(is_accepted)
    return verdicts


def _features(sequence: Sequence, pending: PendingCandidate, hidden: Tensor) -> DecisionFeatures:
    """What the proxy reads of the candidate whose state is `hidden` (D,): one decision."""
    target = target_scalars([sequence.request.params.target_return]).to(hidden.device)
    return DecisionFeatures(pending.prefix_hidden[None], hidden[None], pending.scalars[pending.index][None], target)


def _uniform(sequence: Sequence) -> Tensor:
    """The decision's threshold: one half when greedy."""
    if sequence.request.params.decision == "sample":
        return torch.rand((), generator=sequence.generator)
    return torch.tensor(0.5)
