"""Numbers on their way to the LLM's device."""

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """`values` of the host on `device`, by a transfer that the host does not wait for.

    A tensor that is made on a GPU from Python's numbers waits for all that the GPU has still to do.
    """
    on_host = values.pin_memory() if device.type == "cuda" else values
    return on_host.to(device, non_blocking=True)
