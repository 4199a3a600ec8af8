"""The actor over whole slates, as `scorer.c` computes it."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from proxy_model.native.library import CScorer, CShare, kernels, load_kernels


class NativeScorer:
    """One version's weights, all float32: those of `SlateScorer`."""

    def __init__(
        self,
        prefix: Float[Tensor, "D H"],
        table: Float[Tensor, "V H"],
        scalars: Float[Tensor, "4 H"],
        target: Float[Tensor, "2 H"] | None,
        output: Float[Tensor, " H"],
        bias: float,
    ) -> None:
        given = (prefix, table, scalars, target, output)
        self._kept = [None if each is None else each.contiguous() for each in given]
        addresses = (None if each is None else each.data_ptr() for each in self._kept)
        self._c = CScorer(*prefix.shape, *addresses, bias)

    @staticmethod
    def supports(prefix: Float[Tensor, "D H"]) -> bool:
        """Whether the kernels are there and take a first layer of this kind and shape."""
        return prefix.device.type == "cpu" and prefix.shape[1] % 16 == 0 and load_kernels() is not None

    def score(
        self,
        states: Float[Tensor, "B D"],
        tokens: Int[Tensor, "B K"],
        logprobs: Float[Tensor, "B K"],
        is_candidate: Bool[Tensor, "B K"],
        rows: Sequence[int],
        target: Float[Tensor, "R 2"] | None,
        accept_logits: Float[Tensor, "B K"],
    ) -> None:
        """Write the accept logits of `rows` of the slates; `states` are normalised, and all tensors contiguous."""
        index = torch.tensor(rows)
        targets = None if target is None else target.contiguous()
        share = CShare(
            len(rows),
            tokens.shape[1],
            index.data_ptr(),
            states.data_ptr(),
            tokens.data_ptr(),
            logprobs.data_ptr(),
            is_candidate.data_ptr(),
            None if targets is None else targets.data_ptr(),
            accept_logits.data_ptr(),
        )
        kernels().score(self._c, share, torch.get_num_threads())
