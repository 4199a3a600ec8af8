"""Where a step's time goes, by wrapping the functions that do its parts. On CPU, where a call returns when done."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_double
from dataclasses import dataclass, field
from typing import Any

from proxy_model.decoding import engine
from proxy_model.decoding.emit import Emitter
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.scheduler import Scheduler
from proxy_model.llm import llama_decoder
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.llm.kv_cache import KVCache
from proxy_model.llm.linear import FrozenLinear
from proxy_model.llm.llama_decoder import LlamaDecoder
from proxy_model.llm.native_decoder import NativeLlamaDecoder

LAYERS = "products of the layers"
NORMS = "norms"
ATTENTION = "attention"
WRITES = "writes into the cache"
HEAD = "the head"
OTHER = "embedding, rotary, residuals, activations"
_WHOLE = frozenset({HEAD, "slates, proxy, choice"})
"""Parts whose own parts are not told apart."""

_COMPILED = (NORMS, LAYERS, WRITES, ATTENTION)
"""What compiled code times by itself, in the order of `native.library.PARTS`. Its writes include the rotary embedding,
its products the activation and the residuals."""

_PARTS: tuple[tuple[Any, str, str], ...] = (
    (Engine, "step", "the loop's Python"),
    (Scheduler, "plan", "who runs"),
    (LlamaDecoder, "forward", OTHER),
    (LlamaDecoder, "_norm", NORMS),
    (FrozenLinear, "__call__", LAYERS),
    (NativeLlamaDecoder, "forward", OTHER),
    (llama_decoder, "attend", ATTENTION),
    (KVCache, "write", WRITES),
    (FrozenLLM, "logits", HEAD),
    (engine, "decide", "slates, proxy, choice"),
    (engine, "to_host", "tokens to Python"),
    (Emitter, "accept", "text and deltas"),
)


@dataclass(slots=True)
class Parts:
    """Seconds by part, without those of the parts inside of it."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    def enter(self, part: str) -> None:
        """The time from now on is this part's."""
        self._book()
        self._open.append(self._open[-1] if self._open and self._open[-1] in _WHOLE else part)

    def leave(self) -> None:
        """The time from now on is the part's around it."""
        self._book()
        self._open.pop()

    def _book(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def timed_parts() -> Iterator[Parts]:
    """Time the parts of every step within the block."""
    parts, compiled = Parts(), (c_double * len(_COMPILED))()
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in _PARTS]
    try:
        for (owner, name, part), (_, _, original) in zip(_PARTS, originals, strict=True):
            setattr(owner, name, _timed(original, part, parts))
        NativeLlamaDecoder.seconds = compiled
        yield parts
    finally:
        NativeLlamaDecoder.seconds = None
        for owner, name, original in originals:
            setattr(owner, name, original)
        for part, seconds in zip(_COMPILED, compiled, strict=True):
            parts.seconds[part] += seconds
            parts.seconds[OTHER] -= seconds


def _timed(work: Callable[..., Any], part: str, parts: Parts) -> Callable[..., Any]:
    @functools.wraps(work)
    def timed(*args: Any, **kwargs: Any) -> Any:
        parts.enter(part)
        try:
            return work(*args, **kwargs)
        finally:
            parts.leave()

    return timed
