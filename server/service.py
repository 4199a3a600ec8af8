"""The running server's state: what is loaded, whether it may serve, and what goes on beside the requests."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy_model.versions.registry import ProxyRegistry
from server.access.admission import Admission
from server.access.keys import Access
from server.access.limits import Limiter
from server.backends.protocol import Backend, LLMCard
from server.errors import unavailable
from server.generation.storage import Storage
from server.proxies.canary_guard import CanaryGuard
from server.proxies.demo import publish_demo_proxies
from server.proxies.reloader import Reloader
from server.proxies.rollout import guard_canaries
from server.settings import Settings
from server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from server.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

_STATS_SECONDS = 1.0
_WATCH_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Serving:
    """What exists once the LLM is loaded."""

    llm: LLMCard
    reloader: Reloader
    fingerprint: str
    """Names the LLM's weights, for `system_fingerprint`."""


class Service:
    """One per application."""

    def __init__(self, settings: Settings, backend: Backend) -> None:
        self.settings = settings
        self.backend = backend
        self.metrics = Metrics()
        self.limiter = Limiter(settings.key_limits)
        self.guard = CanaryGuard(settings.canary_bands)
        self.admission = Admission(backend, self.metrics, self.guard)
        self.access = Access(settings.key_sources)
        self.storage = Storage(settings)
        self.tracing: Tracing | None = None
        """Set by whoever starts the server, where traces are wanted."""

        self.is_draining = False
        self.num_open = 0
        """HTTP requests that are being answered, probes left out."""

        self.on_ready: Callable[[], None] = lambda: None
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self.on_stuck: Callable[[], None] = lambda: None
        self._serving: Serving | None = None

    async def run(self) -> None:
        """Load, then keep proxies and metrics up to date until cancelled; a failed start goes to `on_failure`."""
        try:
            self._serving = serving = await self._start()
        except Exception as error:  # noqa: BLE001 - whoever started the server decides what to say
            self.on_failure(error)
            return
        self.on_ready()
        await asyncio.gather(
            serving.reloader.run(self.settings.reload_seconds),
            guard_canaries(self.guard, serving.reloader, self.metrics),
            self._record_stats(),
            self._watch_engine(),
            self.access.follow(),
            self.storage.sweep(),
        )

    def serving(self) -> Serving:
        """What requests need. Raises `ApiError` 503 while there is nothing to serve with, or no more."""
        problem = self.problem()
        if problem is not None or self._serving is None:
            self.metrics.reject_admission("not_serving")
            raise unavailable(f"The server cannot serve now: {problem}.", code="not_ready")
        return self._serving

    def problem(self) -> str | None:
        """Why the server is not ready; None when it is."""
        if self.is_draining:
            return "it is shutting down"
        health = self.backend.health()
        if health.state != "running":
            return health.detail
        return "the proxies are being loaded" if self._serving is None else None

    def record_stats(self) -> None:
        """Bring the metrics up to date."""
        self.metrics.set_ready(self.problem() is None)
        stats = self.backend.drain_stats()
        self.metrics.record(stats)
        if self.tracing is not None:
            for record in stats.ended:
                self.tracing.answered(record)

    async def _start(self) -> Serving:
        await self.storage.open()
        llm = await self.backend.start()
        self.metrics.set_model(llm.name)
        registry = ProxyRegistry(self.settings.proxies_root)
        await asyncio.to_thread(_prepare, registry, llm)
        reloader = Reloader(registry, self.backend, self.metrics, llm.fingerprint, self.settings.max_pinned)
        await reloader.refresh()
        weights = str(llm.fingerprint.get("llm_weights", ""))[:8]
        return Serving(llm, reloader, f"{llm.name}-{weights}" if weights else llm.name)

    async def _watch_engine(self) -> None:
        """A step that does not end will not: the answers get their errors, and then it is for a new process."""
        since: float | None = None
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            is_stalled = self.backend.health().state == "stalled"
            since = (since or time.monotonic()) if is_stalled else None
            if since is not None and time.monotonic() - since > self.settings.give_up_seconds:
                logger.critical("the decode loop is stuck; giving up", extra={"open_requests": self.num_open})
                await self.backend.stop()
                self.on_stuck()
                return

    async def _record_stats(self) -> None:
        while True:
            await asyncio.sleep(_STATS_SECONDS)
            self.record_stats()


def _prepare(registry: ProxyRegistry, llm: LLMCard) -> None:
    """Clean up after writers that were killed, and publish what ships with the program."""
    for path in registry.remove_leftovers():
        logger.info("an unfinished version was deleted", extra={"path": str(path)})
    publish_demo_proxies(registry, llm.fingerprint)
