"""The compiled kernels as Python calls them: found, checked against this processor, and their structures.

Field names and orders are those of `linear.h`, `team.h`, `slate.h`, `scorer.h` and `llama.h`.
"""

import ctypes
from ctypes import POINTER, Structure, c_double, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

from proxy_model.errors import ModelUnavailable
from proxy_model.native.build import is_supported, library

_OUT_OF_BOUNDS = -2
STORE_FLOAT = 1
"""`linear.h`'s epilogue: the product as float32."""


PARTS = ("norms", "products", "rotary, writes into the cache", "attention")
"""`llama.c`'s, which a step can time."""


class CLinear(Structure):
    _fields_ = (("panels", c_void_p), ("bias", c_void_p), ("num_inputs", c_int64), ("num_outputs", c_int64))


class COpenMP(Structure):
    _fields_ = (("parallel", c_void_p), ("thread_number", c_void_p), ("num_threads", c_void_p))


class CLayer(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("input_norm", "mlp_norm", "query_norm", "key_norm")),
        *((name, CLinear) for name in ("qkv", "output", "gate_up", "down")),
        ("scale", c_float),
    )


class CModel(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim")),
        *((name, c_int64) for name in ("intermediate_size", "vocab_size", "max_context")),
        ("epsilon", c_float),
        *((name, c_void_p) for name in ("embedding", "final_norm", "cos", "sin")),
        ("layers", POINTER(CLayer)),
    )


class CStep(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("num_rows", "num_layers")),
        *((name, c_void_p) for name in ("tokens", "positions", "slots", "places", "begins")),
        *((name, c_int64) for name in ("num_slots", "capacity")),
        *((name, POINTER(c_void_p)) for name in ("keys", "values")),
        *((name, c_int64) for name in ("first_sibling", "num_siblings")),
        *((name, c_void_p) for name in ("sibling_keys", "sibling_values")),
        ("taps", POINTER(c_void_p)),
        ("hidden", c_void_p),
        ("seconds", POINTER(c_double)),
    )


class CSlates(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("num_rows", "size", "width")),
        *((name, c_void_p) for name in ("logits", "temperatures", "samplings", "top_ps", "keys", "tokens", "logprobs")),
    )


class CScorer(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("state_size", "hidden_size")),
        *((name, c_void_p) for name in ("prefix", "table", "scalars", "target", "output")),
        ("bias", c_float),
    )


class CShare(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("num_rows", "width")),
        *((name, c_void_p) for name in ("rows", "states", "tokens", "logprobs", "is_candidate", "targets")),
        ("accept_logits", c_void_p),
    )


class Kernels:
    """The loaded library. Its calls release Python's lock while they compute."""

    def __init__(self, path: Path, openmp: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        runtime = ctypes.CDLL(str(openmp))
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        self._openmp = COpenMP(*(ctypes.cast(getattr(runtime, name), c_void_p) for name in names))

    def llama_step(self, model: CModel, step: CStep, num_threads: int) -> None:
        """One pass. Raises `MemoryError`, or `IndexError` where a row is out of bounds."""
        openmp = ctypes.byref(self._openmp)
        failure = self._library.llama_step(ctypes.byref(model), ctypes.byref(step), openmp, c_int(num_threads))
        if failure == _OUT_OF_BOUNDS:
            raise IndexError("a token is outside of the vocabulary, the context or the cache")
        if failure:
            raise MemoryError("no memory for a step of the LLM")

    def slates(self, slates: CSlates, num_threads: int) -> None:
        """Fill the slates' tokens and log-probabilities. Raises `MemoryError`."""
        if self._library.slates(ctypes.byref(slates), ctypes.byref(self._openmp), c_int(num_threads)):
            raise MemoryError("no memory for the slates of a step")

    def score(self, scorer: CScorer, share: CShare, num_threads: int) -> None:
        """Fill the accept logits of the share's rows. Raises `MemoryError`."""
        openmp = ctypes.byref(self._openmp)
        if self._library.score(ctypes.byref(scorer), ctypes.byref(share), openmp, c_int(num_threads)):
            raise MemoryError("no memory for the scores of a step")

    def linear(self, weight: CLinear, rows: int, num_rows: int, out: int, num_threads: int) -> None:
        """out [num_rows][num_outputs] float32 = rows @ weight.T + bias, rounded to bfloat16; addresses of both."""
        arguments = (c_void_p(rows), c_int64(num_rows), c_void_p(out), c_int(STORE_FLOAT))
        self._library.linear(ctypes.byref(weight), *arguments, ctypes.byref(self._openmp), c_int(num_threads))


@lru_cache(maxsize=1)
def load_kernels() -> Kernels | None:
    """The kernels; None if nobody compiled these sources, this processor is another, or torch came without OpenMP."""
    path = library()
    openmp = _loaded_openmp()
    if not is_supported() or openmp is None or not path.is_file() or not _knows_bfloat16():
        return None
    return Kernels(path, openmp)


def kernels() -> Kernels:
    """The kernels where they are known to be there. Raises `ModelUnavailable` elsewhere."""
    found = load_kernels()
    if found is None:
        raise ModelUnavailable("there are no compiled kernels for this processor")
    return found


def _knows_bfloat16() -> bool:
    """Whether every processor of this machine has AVX-512 with BF16."""
    flags = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")]
    return bool(flags) and all("avx512_bf16" in line.split() for line in flags)


def _loaded_openmp() -> Path | None:
    """The OpenMP runtime that torch has loaded into this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split()[-1])
        if path.name.startswith("libgomp"):
            return path
    return None
