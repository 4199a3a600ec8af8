"""From accept logits to the token that comes out."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from proxy_model.decision.skam import Slate


@dataclass(frozen=True, slots=True)
class Choice:
    """The accepted candidate of B positions."""

    tokens: Int[Tensor, " B"]
    ranks: Int[Tensor, " B"]
    """Index in the slate: the number of rejections before it."""

    is_forced: Bool[Tensor, " B"]
    """The accepted candidate could not have been rejected."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The outcome of a step for B rows."""

    slate: Slate
    accept_logits: Float[Tensor, "B K"]
    """NaN where no proxy was asked."""

    choice: Choice


def first_accepted(accept_logits: Float[Tensor, "B K"], slate: Slate, uniforms: Float[Tensor, "B K"]) -> Choice:
    """Walk down the slate to the first candidate that is accepted, or whose acceptance is forced.

    A free candidate is accepted where `uniforms` < pi(accept); one half everywhere makes the decisions greedy.
    """
    accepts = (uniforms < torch.sigmoid(accept_logits)) | ~slate.is_free
    return accepted_at(accepts.int().argmax(-1), slate)


def accepted_at(ranks: Int[Tensor, " B"], slate: Slate) -> Choice:
    """The choice of the candidates at `ranks`."""
    index = ranks[:, None]
    return Choice(slate.tokens.gather(1, index)[:, 0], ranks, ~slate.is_free.gather(1, index)[:, 0])
