"""`skam`'s searches of the vocabulary, as `slate.c` does them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from proxy_model.native.library import CSlates, kernels, load_kernels


def supports(logits: Tensor) -> bool:
    """Whether the kernels are there and read these logits (B, V)."""
    is_plain = logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.is_contiguous()
    return is_plain and load_kernels() is not None


def likeliest(
    logits: Float[Tensor, "B V"], temperature: Float[Tensor, " B"], width: int
) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    """As `skam.likeliest`."""
    return _search(logits, temperature, width)


def drawn(
    logits: Float[Tensor, "B V"],
    temperature: Float[Tensor, " B"],
    width: int,
    sampling: Float[Tensor, " B"],
    top_p: Float[Tensor, " B"] | None,
    keys: Int[Tensor, " B"],
) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    """As `skam.drawn`."""
    return _search(logits, temperature, width, sampling, torch.ones_like(sampling) if top_p is None else top_p, keys)


def _search(
    logits: Tensor,
    temperature: Tensor,
    width: int,
    sampling: Tensor | None = None,
    top_p: Tensor | None = None,
    keys: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    num_rows, size = logits.shape
    logits = logits.contiguous()
    tokens = torch.empty(num_rows, width, dtype=torch.long)
    logprobs = torch.empty(num_rows, width)
    settings = [None if each is None else each.contiguous() for each in (temperature, sampling, top_p, keys)]
    kernels().slates(
        CSlates(
            num_rows,
            size,
            width,
            logits.data_ptr(),
            *(None if each is None else each.data_ptr() for each in settings),
            tokens.data_ptr(),
            logprobs.data_ptr(),
        ),
        torch.get_num_threads(),
    )
    return tokens, logprobs
