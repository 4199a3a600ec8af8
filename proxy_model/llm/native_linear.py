"""A frozen weight as `linear.c` reads it."""

import torch
from torch import Tensor

from proxy_model.native.library import CLinear, kernels, load_kernels

PANEL = 64
"""Outputs that are computed together: `linear.h`'s."""


class PackedLinear:
    """`x @ weight.T + bias` of bfloat16 rows, each the same to the bit alone and among others."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """`weight` (num_outputs, num_inputs) as `supports` says."""
        self.num_outputs, num_inputs = weight.shape
        self._kernels = kernels()
        self._panels = weight.detach().unflatten(0, (-1, PANEL)).unflatten(-1, (-1, 2)).transpose(1, 2).contiguous()
        self._bias = None if bias is None else bias.detach().contiguous()
        bias_address = None if self._bias is None else self._bias.data_ptr()
        self.c = CLinear(self._panels.data_ptr(), bias_address, num_inputs, self.num_outputs)

    @staticmethod
    def supports(weight: Tensor) -> bool:
        """Whether the kernels are there and take a weight (num_outputs, num_inputs) of this dtype and shape."""
        is_native = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        is_whole = weight.shape[0] % PANEL == 0 and weight.shape[1] % 2 == 0
        return is_native and is_whole and load_kernels() is not None

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, num_inputs) -> (N, num_outputs) float32, rounded to bfloat16."""
        rows = rows.contiguous()
        out = rows.new_empty(len(rows), self.num_outputs, dtype=torch.float32)
        self._kernels.linear(self.c, rows.data_ptr(), len(rows), out.data_ptr(), torch.get_num_threads())
        return out
