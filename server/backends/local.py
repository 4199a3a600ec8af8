"""The engine of `proxy_model` in this process, on its own thread."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import BROKEN, Engine
from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.decoding.grammar_compiler import CompiledGrammar
from proxy_model.decoding.request import Delta, GenerationRequest
from proxy_model.errors import EngineDead
from proxy_model.llm.frozen_llm import DecoderKind
from proxy_model.llm.tokenizer import ChatTokenizer
from server.backends.answer import QueuedAnswer
from server.backends.engine_thread import EngineThread
from server.backends.protocol import Capability, EngineStats, Health, LLMCard
from server.backends.waiting_line import LineLimits, WaitingLine

T = TypeVar("T")

_DECODERS: dict[DecoderKind, str] = {"native": "compiled kernels", "torch": "torch", "transformers": "transformers"}


class LocalBackend:
    """An `Engine` behind asyncio. `build` makes it, on the engine's thread; `on_death` hears if that thread ends."""

    capabilities: frozenset[Capability] = frozenset({"logprobs", "decisions", "target_return", "grammar"})

    def __init__(
        self,
        build: Callable[[], Engine],
        *,
        stall_seconds: float = 60.0,
        max_unread: int = 1024,
        line_limits: LineLimits = LineLimits(),  # noqa: B008 - frozen
        on_death: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.on_death = on_death
        self._thread = EngineThread(build, self, WaitingLine(line_limits))
        self._max_unread = max_unread
        self._stall_seconds = stall_seconds
        self._answers: dict[str, QueuedAnswer] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._death: BaseException | None = None
        self._is_stopping = False
        self._tokenizing = ThreadPoolExecutor(1, "tokenizer")
        self._compiling = ThreadPoolExecutor(1, "grammars")

    async def start(self) -> LLMCard:
        """Build the engine and return what it serves. Raises whatever building raises."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        engine = await asyncio.wrap_future(self._thread.loaded)
        llm = engine.llm
        if engine.drafts:
            self.capabilities |= {"prediction"}
        return LLMCard(
            name=llm.name,
            fingerprint=llm.fingerprint,
            vocab_size=llm.vocab_size,
            max_context=engine.max_context,
            loaded_at=int(time.time()),
            computed_by=f"{_DECODERS[llm.decoder_kind]}, {str(llm.dtype).removeprefix('torch.')} on {llm.device}",
        )

    async def stop(self) -> None:
        """Leave after the current step; answers that still run end with an error delta."""
        self._is_stopping = True
        if not await asyncio.to_thread(self._thread.stop):
            self._die(EngineDead("the decode loop does not end its step"))
        self._tokenizing.shutdown(wait=False)
        self._compiling.shutdown(wait=False, cancel_futures=True)

    async def ask_tokenizer(self, question: Callable[[ChatTokenizer], T]) -> T:
        """What `question` makes of the LLM's tokenizer; one question at a time, off the event loop."""
        tokenizer = self._thread.loaded.result().llm.tokenizer
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, question, tokenizer)

    async def compile_grammar(self, spec: GrammarSpec) -> CompiledGrammar:
        """One grammar at a time, off the event loop and beside the engine's thread."""
        grammars = self._thread.loaded.result().grammars
        return await asyncio.get_running_loop().run_in_executor(self._compiling, grammars.compile, spec)

    def generate(self, request: GenerationRequest) -> QueuedAnswer:
        """Queue `request`; its answer yields deltas, and aborts it when closed before the last one."""
        admission = asyncio.wrap_future(self._thread.submit(request))
        answer = QueuedAnswer(request.id, admission, self._close, self._max_unread)
        self._answers[request.id] = answer
        return answer

    async def load_proxy(self, ref: ProxyRef, policy: ProxyPolicy, skam: SkamConfig, folder: Path) -> None:
        """Prepare a version beside the engine's thread, then let it in between two steps. Raises `InvalidParameter`."""
        engine = self._thread.loaded.result()
        proxy = await asyncio.to_thread(engine.prepare_proxy, ref, policy, skam)
        await asyncio.wrap_future(self._thread.call(lambda engine: engine.add_proxy(proxy)))

    async def unload_proxy(self, ref: ProxyRef) -> None:
        """Take a version away from new requests, after all that were queued before."""
        await asyncio.wrap_future(self._thread.call(lambda engine: engine.unload_proxy(ref)))

    async def list_proxies(self) -> list[ProxyRef]:
        """Loaded versions."""
        return await asyncio.wrap_future(self._thread.call(lambda engine: engine.list_proxies()))

    def seconds_to_serve(self) -> float:
        """Until everyone who waits now has been served, as measured."""
        return self._thread.seconds_to_serve

    def drain_stats(self) -> EngineStats:
        """What happened since the last call."""
        return self._thread.drain_stats()

    def health(self) -> Health:
        """`stalled` when one step takes longer than `stall_seconds`."""
        if self._death is not None:
            return Health(state="dead", detail="the decode loop has stopped")
        if not self._thread.loaded.done():
            return Health(state="loading", detail="the LLM is being loaded")
        if self._thread.seconds_in_step > self._stall_seconds:
            return Health(state="stalled", detail="the decode loop does not get on")
        return Health(state="running")

    def on_deltas(self, deltas: list[Delta]) -> None:
        """On the engine's thread: hand a step's deltas over in one go."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._deliver, deltas)

    def on_dead(self, error: BaseException) -> None:
        """On the engine's thread, which ends here."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._die, error)

    def _deliver(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            answer = self._answers.get(delta.request_id)
            if answer is not None:
                answer.push(delta)
            if delta.finish_reason is not None:
                self._answers.pop(delta.request_id, None)

    def _die(self, error: BaseException) -> None:
        self._death = error
        for answer in self._answers.values():
            answer.refuse()
        self._deliver([Delta(request_id=name, finish_reason="error", error=BROKEN) for name in list(self._answers)])
        if not self._is_stopping and self._thread.loaded.exception() is None:
            self.on_death(error)

    def _close(self, request_id: str) -> None:
        if self._answers.pop(request_id, None) is not None:
            self._thread.abort(request_id)
