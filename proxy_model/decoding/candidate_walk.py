"""The walk of `candidate` and `both` features: the LLM reads candidates, then the proxy decides on them in order.

An accepted candidate's own pass yields the next logits. So where the LLM reads one candidate at a time, only rejected
ones cost a pass, and where it reads several side by side (`Branches`), only those beyond them.
"""

import torch
from torch import Tensor

from proxy_model.decision.choice import accepted_at
from proxy_model.decision.features import DecisionFeatures, slate_scalars, target_scalars
from proxy_model.decoding.decode import Decided
from proxy_model.decoding.emit import AcceptedPosition
from proxy_model.decoding.sequence import PendingCandidate, Sequence


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


def judge(hidden: Tensor, sequence: Sequence) -> int | None:
    """Decide on the next candidates of a sequence, one after the other, from their h(prefix + candidate) (W, D).

    Returns which of them is accepted. None if none is: then those behind them are up.
    """
    for place, state in enumerate(hidden):
        if _accepts(sequence, state):
            return place
    return None


def _accepts(sequence: Sequence, hidden: Tensor) -> bool:
    """Decide on the pending candidate, whose state is `hidden` (D,); rejected, it makes way for the next one."""
    pending, proxy = sequence.pending, sequence.proxy
    assert pending is not None and proxy is not None
    if sequence.recorder is not None:
        sequence.recorder.add_candidate(hidden)
    index = pending.index
    logit = proxy.score_candidates(_features(sequence, pending, hidden))
    pending.accept_logits[index] = logit[0]
    is_accepted = not pending.is_free[index] or bool(_uniform(sequence) < torch.sigmoid(logit[0]))
    if not is_accepted:
        pending.index += 1
    return is_accepted


def _features(sequence: Sequence, pending: PendingCandidate, hidden: Tensor) -> DecisionFeatures:
    """What the proxy reads of the candidate whose state is `hidden` (D,): one decision."""
    target = target_scalars([sequence.request.params.target_return]).to(hidden.device)
    return DecisionFeatures(pending.prefix_hidden[None], hidden[None], pending.scalars[pending.index][None], target)


def _uniform(sequence: Sequence) -> Tensor:
    """The decision's threshold: one half when greedy."""
    if sequence.request.params.decision == "sample":
        return torch.rand((), generator=sequence.generator)
    return torch.tensor(0.5)
