"""The product with a weight that never changes, laid out once as the processor reads it fastest."""

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_WHOLE_SUM = 1024
"""Longer sums of blocked weights oneDNN takes in another order for one row than for two or more."""


class FrozenLinear:
    """`x @ weight.T + bias`.

    On CPUs that multiply bfloat16 natively the weight is kept in oneDNN's blocked layout: torch's own product lays a
    plain weight out anew in every call, which takes longer than one row's product. Elsewhere it is torch's own product.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.num_outputs = weight.shape[0]
        self._bias = None if bias is None else bias.detach()
        self._is_blocked = is_blocked_faster(weight)
        self._must_double = self._is_blocked and weight.shape[1] > _MAX_WHOLE_SUM
        weight = weight.detach().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._is_blocked else weight

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, num_outputs), each row the same to the bit alone and among others."""
        if self._must_double and rows.shape[0] == 1:
            return self(rows.expand(2, -1).contiguous())[:1]
        if self._is_blocked:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
            return product
        return F.linear(rows, self._weight, self._bias)


def is_blocked_faster(weight: Tensor) -> bool:
    """Whether `FrozenLinear` lays this weight out anew."""
    is_on_cpu = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return is_on_cpu and torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
