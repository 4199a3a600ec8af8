"""A weight that is laid out anew multiplies as it did before."""

import pytest
import torch
import torch.nn.functional as F

from proxy_model.llm.linear import FrozenLinear, is_blocked_faster


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("num_rows", [1, 2, 7, 32, 300])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_product_is_torchs_own(dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(num_rows)
    rows = torch.randn(num_rows, 96, generator=generator).to(dtype)
    weight = torch.randn(160, 96, generator=generator).to(dtype)
    bias = torch.randn(160, generator=generator).to(dtype) if has_bias else None

    linear = FrozenLinear(weight, bias)

    assert linear.num_outputs == 160
    torch.testing.assert_close(linear(rows), F.linear(rows, weight, bias))


def test_only_bfloat16_is_laid_out_anew() -> None:
    is_native = torch.ops.mkldnn._is_mkldnn_bf16_supported()

    assert is_blocked_faster(torch.zeros(4, 4, dtype=torch.bfloat16)) == is_native
    assert not is_blocked_faster(torch.zeros(4, 4))


@pytest.mark.parametrize("num_inputs", [576, 1536])
def test_a_row_has_one_product_whatever_is_beside_it(num_inputs: int) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(32, num_inputs, generator=generator).to(torch.bfloat16)
    linear = FrozenLinear(torch.randn(960, num_inputs, generator=generator).to(torch.bfloat16))

    together = linear(rows)

    assert torch.equal(together[:8], linear(rows[:8]))
    for row in range(32):
        assert torch.equal(together[row], linear(rows[row : row + 1])[0])
