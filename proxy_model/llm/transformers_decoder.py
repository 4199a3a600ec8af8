"""Any causal LM of transformers, run on packed steps through its attention interface.

The model's own code does everything but attention; attention is ours, so that every architecture (sliding windows,
logit soft-capping, unusual norms) shares one cache and one notion of a step.
"""

import itertools
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from proxy_model.errors import ModelUnavailable
from proxy_model.llm.attention import AttentionShape, PackedStep, attend

_numbers = itertools.count()


class TransformersDecoder:
    """Embedding, layers and final norm of a transformers model."""

    def __init__(self, model: Any) -> None:
        self.model = model.base_model
        self.embedding: Tensor = model.get_input_embeddings().weight.detach()
        self._step: PackedStep | None = None
        self._num_attended = 0
        name = f"proxy_rlhf_{next(_numbers)}"
        AttentionInterface.register(name, self._attend)
        AttentionMaskInterface.register(name, _no_mask)
        model.set_attn_implementation(name)

    def forward(self, step: PackedStep, taps: tuple[int, ...] = ()) -> tuple[Tensor, list[Tensor]]:
        """Last hidden states after the final norm (N, D), and the outputs of the layers numbered in `taps` (from 1)."""
        self._step, self._num_attended = step, 0
        try:
            output = self.model(
                input_ids=step.tokens[None],
                position_ids=step.positions[None],
                use_cache=False,
                output_hidden_states=bool(taps),
            )
        finally:
            self._step = None
        if not self._num_attended:
            raise ModelUnavailable(
                f"{type(self.model).__name__} does not use transformers' attention interface; it cannot be served"
            )
        return output.last_hidden_state[0], [output.hidden_states[tap][0] for tap in taps]

    def _attend(
        self,
        module: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """transformers' attention signature: (1, heads, N, head_dim) in, (1, N, heads, head_dim) out."""
        assert self._step is not None
        self._num_attended += 1
        shape = AttentionShape(
            scale=scaling if scaling is not None else queries.shape[-1] ** -0.5,
            sliding_window=sliding_window,
            softcap=softcap,
        )
        rows, row_keys, row_values = (tensor[0].transpose(0, 1) for tensor in (queries, keys, values))
        return attend(self._step, module.layer_idx, rows, row_keys, row_values, shape)[None], None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """`attend` makes its own masks."""
    return
