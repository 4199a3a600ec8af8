"""vLLM's async engine behind the server: the plugin decides in its workers, the emitter words what comes out."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.admission import check_fits, check_proxy, check_target
from proxy_model.decoding.emit import Emitter
from proxy_model.decoding.engine import BROKEN
from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.decoding.grammar_compiler import CompiledGrammar, GrammarCompiler
from proxy_model.decoding.request import Delta, GenerationRequest
from proxy_model.errors import EngineDead, EngineFull, InvalidParameter, ProxyRlhfError
from proxy_model.llm.tokenizer import ChatTokenizer
from server.backends.answer import QueuedAnswer
from server.backends.protocol import OVERDUE, Capability, EngineStats, Health, LLMCard
from server.backends.vllm.launch import (
    OpenedModel,
    VllmSettings,
    check_options,
    generate,
    launch,
    open_model,
    require_vllm,
)
from server.backends.vllm.progress import Progress
from server.backends.vllm.pulse import stat_logger
from server.backends.vllm.stream import AnswerStream
from server.backends.vllm.versions import WorkerVersions, settled
from server.backends.waiting_line import LineLimits

T = TypeVar("T")

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.1


class VllmBackend:
    """`on_death` hears if vLLM's processes end by themselves. Raises `InvalidParameter` without the right vLLM."""

    capabilities: frozenset[Capability] = frozenset({"logprobs", "decisions", "target_return", "grammar"})

    def __init__(
        self,
        settings: VllmSettings,
        *,
        stall_seconds: float = 60.0,
        max_unread: int = 1024,
        line_limits: LineLimits = LineLimits(),  # noqa: B008 - frozen
        on_death: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        check_options(settings.options)
        require_vllm(settings.threads)
        self.on_death = on_death
        self._settings = settings
        self._stall_seconds = stall_seconds
        self._max_unread = max_unread
        self._progress = Progress(line_limits)
        self._versions = WorkerVersions(self._call_workers)
        self._answers: dict[str, QueuedAnswer] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._death: BaseException | None = None
        self._is_stopping = False
        self._reading = ThreadPoolExecutor(1, "tokenizer")
        self._compiling = ThreadPoolExecutor(1, "grammars")
        self._model: OpenedModel
        self._emitter: Emitter
        self._grammars: GrammarCompiler
        self._engine: Any = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> LLMCard:
        """Read the LLM's identity, start vLLM and put the plugin to work. Raises `ModelUnavailable` and the like."""
        self._model = model = await asyncio.to_thread(open_model, self._settings)
        identity = model.identity
        self._emitter = Emitter(identity.tokenizer, identity.end_token_ids)
        self._grammars = GrammarCompiler(identity)
        logger_class = stat_logger(self._progress.stepped)
        engine = await asyncio.to_thread(launch, model.arguments, logger_class)
        await engine.collective_rpc("proxy_start", args=(model.setup,))
        self._engine = engine
        self._watcher = asyncio.create_task(self._watch())
        return LLMCard(
            name=identity.name,
            fingerprint=identity.fingerprint,
            vocab_size=identity.vocab_size,
            max_context=model.max_context,
            loaded_at=int(time.time()),
            computed_by="vLLM",
        )

    async def stop(self) -> None:
        """End running answers with an error delta and vLLM's processes with them."""
        self._is_stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
        self._die(EngineDead("the engine was stopped"))
        self._reading.shutdown(wait=False)
        self._compiling.shutdown(wait=False, cancel_futures=True)
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown)

    async def ask_tokenizer(self, question: Callable[[ChatTokenizer], T]) -> T:
        """What `question` makes of the LLM's tokenizer; one question at a time, off the event loop."""
        tokenizer = self._model.identity.tokenizer
        return await asyncio.get_running_loop().run_in_executor(self._reading, question, tokenizer)

    async def compile_grammar(self, spec: GrammarSpec) -> CompiledGrammar:
        """Here, which finds out whether it is in order, and in every worker beside its steps."""
        loop = asyncio.get_running_loop()
        compiled = await loop.run_in_executor(self._compiling, self._grammars.compile, spec)
        await settled(lambda: self._call_workers("proxy_grammar", spec.kind, spec.text), "response_format", spec.kind)
        return compiled

    def generate(self, request: GenerationRequest) -> QueuedAnswer:
        """Hand `request` to vLLM; its answer yields deltas, and aborts it when closed before the last one."""
        loop = asyncio.get_running_loop()
        admission: asyncio.Future[None] = loop.create_future()
        answer = QueuedAnswer(request.id, admission, self._close, self._max_unread)
        try:
            self._admit(request)
        except ProxyRlhfError as error:
            admission.set_exception(error)
            return answer
        admission.set_result(None)
        self._answers[request.id] = answer
        self._followers[request.id] = loop.create_task(self._follow(request))
        return answer

    async def load_proxy(self, ref: ProxyRef, policy: ProxyPolicy, skam: SkamConfig, folder: Path) -> None:
        """Have the workers read `folder` beside their steps, then let it in. Raises `InvalidParameter`."""
        width = self._settings.sizes.max_candidates
        check_proxy(policy.config, skam, hidden_size=self._model.identity.hidden_size, max_candidates=width)
        if policy.config.features != "prefix":
            raise InvalidParameter("features", policy.config.features, "'prefix' over vLLM")
        await self._versions.load(ref, policy, folder)

    async def unload_proxy(self, ref: ProxyRef) -> None:
        """Take a version away from new requests; it leaves the workers with the last answer that it decides."""
        await self._versions.unload(ref)

    async def list_proxies(self) -> list[ProxyRef]:
        """Loaded versions."""
        return self._versions.refs()

    def seconds_to_serve(self) -> float:
        """Until everyone who waits now has been served, as measured."""
        return self._progress.seconds_to_serve

    def drain_stats(self) -> EngineStats:
        """What happened since the last call."""
        return self._progress.drain()

    def health(self) -> Health:
        """`stalled` when vLLM hands nothing out for `stall_seconds` though there is something to answer."""
        if self._death is not None:
            return Health(state="dead", detail="the decode loop has stopped")
        if self._engine is None:
            return Health(state="loading", detail="the LLM is being loaded")
        if self._progress.seconds_without_sign > self._stall_seconds:
            return Health(state="stalled", detail="the decode loop does not get on")
        return Health(state="running")

    async def _call_workers(self, method: str, *arguments: Any) -> list[Any]:
        results: list[Any] = await self._engine.collective_rpc(method, args=arguments)
        return results

    def _admit(self, request: GenerationRequest) -> None:
        """Raises what `Answer.admitted` says."""
        if self._death is not None:
            raise EngineDead("the engine has stopped")
        if request.id in self._answers:
            raise InvalidParameter("id", request.id, "unique among running requests")
        if request.record:
            raise InvalidParameter("record", True, "false over vLLM: states stay in its workers")
        room = self._model.max_context - (not request.params.max_tokens)  # vLLM answers with a token at least
        check_fits(request, vocab_size=self._model.identity.vocab_size, max_context=room)
        is_conditioned = request.proxy is not None and self._versions.is_conditioned(request.proxy)
        check_target(request.params.target_return, is_conditioned=is_conditioned)
        sizes = self._settings.sizes
        if len(self._answers) >= sizes.max_running + sizes.max_waiting:
            words = f"the queue of {sizes.max_waiting} requests is full"
            raise EngineFull(words, self._progress.seconds_to_serve)
        self._progress.arrived(request)
        self._versions.hold(request.proxy)

    async def _follow(self, request: GenerationRequest) -> None:
        """Bring vLLM's outputs of one request to its answer; cancelling it aborts the request."""
        try:
            await self._pass_on(AnswerStream(request, self._emitter))
        except Exception as error:
            if self._engine.errored:
                self._die(error)
            else:
                logger.exception("an answer broke", extra={"answer": request.id})
                self._break_off(request.id, BROKEN)
        finally:
            self._followers.pop(request.id, None)
            self._versions.release(request.proxy)

    async def _pass_on(self, stream: AnswerStream) -> None:
        request, width = stream.request, self._settings.sizes.max_candidates
        fields = stream.sampling_fields(self._model.identity.end_token_ids, width)
        outputs = generate(self._engine, request.id, stream.prompt(), fields)
        async for output in outputs:
            for delta in stream.deltas(output):
                self._progress.yielded(delta)
                self._deliver(delta)
            if request.id not in self._answers and not output.finished:
                await outputs.aclose()  # it has ended by our reading, by a stop string for one
                return
        if request.id in self._answers:
            logger.error("vLLM ended an answer of its own accord", extra={"answer": request.id})
            self._break_off(request.id, BROKEN)

    def _deliver(self, delta: Delta) -> None:
        answer = self._answers.get(delta.request_id)
        if answer is not None:
            answer.push(delta)
        if delta.finish_reason is not None:
            self._answers.pop(delta.request_id, None)

    def _close(self, request_id: str) -> None:
        """The answer is not wanted any more."""
        if self._answers.pop(request_id, None) is not None:
            self._abort(request_id)
            self._progress.ended(request_id, "abort")

    def _abort(self, request_id: str) -> None:
        """Have vLLM stop."""
        follower = self._followers.get(request_id)
        if follower is not None:
            follower.cancel()

    def _break_off(self, request_id: str, error: str) -> None:
        """End an answer with an error."""
        self._progress.ended(request_id, "error")
        self._deliver(Delta(request_id=request_id, finish_reason="error", error=error))

    def _die(self, error: BaseException) -> None:
        """Every answer ends with an error, and whoever started the server is told, once."""
        if self._death is not None:
            return
        self._death = error
        for request_id in list(self._answers):
            self._abort(request_id)
            self._break_off(request_id, BROKEN)
        if not self._is_stopping:
            logger.critical("vLLM has died", exc_info=error)
            self.on_death(error)

    async def _watch(self) -> None:
        """Send those away who have waited too long, and notice vLLM's end when nobody asks it for anything."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if self._engine.errored:
                self._die(EngineDead("a process of vLLM has ended"))
                return
            for request_id in self._progress.overdue():
                self._abort(request_id)
                self._break_off(request_id, OVERDUE)
