"""Noise that is computed where it is needed: a number out of a key and a token, the same on every device and path.

A random generator would have to run over the whole vocabulary at every position. Two rounds of MurmurHash3's finaliser
mix the token with the key's halves. `native/slate.c` computes the same.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LOW, _WHOLE = (1 << 32) - 1, (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio."""


def noise_key(seed: int, position: int) -> int:
    """63 bits: another for every position of an answer, and for every seed, whatever lies between two seeds."""
    return _mixed(_mixed(seed) + position) >> 1


def _mixed(state: int) -> int:
    """SplitMix64's next number."""
    state = (state + _GOLDEN) & _WHOLE
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WHOLE
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WHOLE
    return state ^ (state >> 31)


def gumbel_noise(keys: Int[Tensor, " B"], size: int) -> Float[Tensor, "B V"]:
    """Standard Gumbel noise of `size` tokens under each key."""
    mixed = (torch.arange(size, device=keys.device) * (_GOLDEN >> 32)) & _LOW
    for half in (keys & _LOW, keys >> 32):
        mixed = mixed ^ half[:, None]
        mixed = ((mixed ^ (mixed >> 16)) * 0x85EBCA6B) & _LOW
        mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) & _LOW
        mixed = mixed ^ (mixed >> 16)
    uniform = ((mixed >> 9).float() + 0.5) * 2.0**-23
    return -(-uniform.log()).log()
