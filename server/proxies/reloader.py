"""Follows the folder of published proxies: loads what an alias names, refuses what is not in order, drops the rest.

New versions are looked for every `reload_seconds`, read and verified off the event loop, and loaded between two decode
steps; only then the alias moves. A version that appears without an alias is verified, too, so that it is refused when
it is published and not when somebody promotes it.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.errors import BadCheckpoint, InvalidParameter, UnknownProxy
from proxy_model.versions.checkpoint import Checkpoint, Fingerprint
from proxy_model.versions.hold import Hold
from proxy_model.versions.registry import ProxyRegistry
from server.backends.protocol import Backend
from server.proxies.proxy_table import ProxyTable
from server.proxies.publications import Published, Signature, look, signature
from server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 10.0
"""A version that the disk would not give is asked for again after this long."""

_UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Trained:
    """The settings that a loaded version was trained with."""

    skam: SkamConfig
    policy: PolicyConfig


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Words, not the exception: that would keep everything alive that its traceback has seen, and grow when raised."""

    reason: str
    detail: str
    signature: Signature
    at: float

    @property
    def error(self) -> BadCheckpoint:
        """To be raised once."""
        return BadCheckpoint(self.reason, self.detail)

    def holds(self, current: Signature) -> bool:
        is_old = self.reason == _UNREADABLE and time.monotonic() - self.at > _RETRY_SECONDS
        return self.signature == current and not is_old


class Reloader:
    """Keeps `table` in step with `registry`."""

    def __init__(
        self, registry: ProxyRegistry, backend: Backend, metrics: Metrics, fingerprint: Fingerprint, max_pinned: int
    ) -> None:
        self.registry = registry
        self.table = ProxyTable()
        self.trained: dict[ProxyRef, Trained] = {}
        """Of every loaded version."""

        self._holds: dict[ProxyRef, Hold | None] = {}
        """What keeps loaded versions from being pruned."""

        self._backend = backend
        self._metrics = metrics
        self._fingerprint = fingerprint
        self._max_pinned = max_pinned
        self._lock = asyncio.Lock()
        self._refused: dict[ProxyRef, _Refusal] = {}
        self._seen: dict[ProxyRef, Signature] | None = None
        """Versions that were there at the first look or were verified since; None before the first look."""

        self._problems: dict[str, str] = {}
        self._obstacles: dict[ProxyRef, str] = {}
        """Of versions that an alias names though they have not passed their gates, as last told."""

    async def run(self, every_seconds: float) -> None:
        """Look at the folder again and again."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await self.refresh()
            except Exception:
                logger.exception("the folder of proxies could not be followed; trying again")

    async def refresh(self) -> None:
        """One look: load, point, verify, unload."""
        async with self._lock:
            published = await asyncio.to_thread(look, self.registry)
            if published is None:
                return
            for name, proxy in published.items():
                await self._follow(name, proxy)
            for name in self.table.aliases.keys() - published.keys():
                logger.warning("a proxy was withdrawn", extra={"proxy": name})
                self.table.keep_only(name, set())
            for ref in self.table.pinned:
                if ref.name not in published or ref.version not in published[ref.name].versions:
                    self.table.unpin(ref)
            await self._inspect_arrivals(published)
            await self._unload_unneeded()
            self._metrics.set_aliases(self.table.aliases)

    async def obtain(self, ref: ProxyRef) -> None:
        """Make sure that a version which a request named by number is loaded. Does not yield when it is.

        Raises `UnknownProxy`, and `BadCheckpoint` when it is not in order.
        """
        if ref not in self.table.loaded:
            async with self._lock:
                if ref not in self.table.loaded:
                    folder = await asyncio.to_thread(self.registry.path, ref)
                    await self._load(ref, await asyncio.to_thread(signature, folder))
                    self.table.pin(ref, self._max_pinned)
                    await self._unload_unneeded()
        if not self.table.is_named(ref):
            self.table.pin(ref, self._max_pinned)

    async def unload(self, ref: ProxyRef) -> None:
        """Let go of a pinned version. Raises `UnknownProxy` if it is not loaded."""
        async with self._lock:
            if ref not in self.table.loaded:
                raise UnknownProxy(f"proxy {ref} is not loaded")
            self.table.unpin(ref)
            await self._unload_unneeded()

    async def verify(self, ref: ProxyRef) -> Checkpoint:
        """Read a version with every check, for this LLM. Raises `UnknownProxy`, `BadCheckpoint`."""
        return await asyncio.to_thread(self.registry.verify, ref, self._fingerprint)

    def refusals(self, name: str) -> dict[int, str]:
        """Why versions of `name` were refused."""
        return {ref.version: str(refusal.error) for ref, refusal in sorted(self._refused.items()) if ref.name == name}

    async def _follow(self, name: str, proxy: Published) -> None:
        """Move the aliases of one proxy as far as their versions are in order."""
        self._note_problem(name, proxy)
        if proxy.aliases is None:
            return
        for alias, version in proxy.aliases.items():
            ref = ProxyRef(name=name, version=version)
            if self._is_gated(ref, proxy):
                continue
            try:
                await self._load(ref, proxy.versions.get(version, ()))
            except (BadCheckpoint, UnknownProxy):
                continue
            if self.table.point(name, alias, version):
                logger.info("an alias moved", extra={"proxy": name, "alias": alias, "version": version})
        self.table.keep_only(name, set(proxy.aliases))
        if self.table.set_canary_share(name, proxy.canary_share):
            logger.info("a canary's share changed", extra={"proxy": name, "share": proxy.canary_share})

    def _is_gated(self, ref: ProxyRef, proxy: Published) -> bool:
        """Whether a version must not be served under an alias; only an edited file, or an old program, gets here."""
        obstacle = proxy.obstacles.get(ref.version)
        if obstacle is not None and self._obstacles.get(ref) != obstacle:
            self._metrics.reload("gates")
            extra = {"proxy": ref.name, "version": ref.version, "detail": obstacle}
            logger.warning("an alias names a version that has not passed its gates", extra=extra)
            self._obstacles[ref] = obstacle
        return obstacle is not None

    def _note_problem(self, name: str, proxy: Published) -> None:
        if proxy.problem and self._problems.get(name) != proxy.problem:
            self._metrics.reload(proxy.problem)
            logger.warning("the aliases of a proxy cannot be read", extra={"proxy": name, "reason": proxy.problem})
        self._problems[name] = proxy.problem

    async def _load(self, ref: ProxyRef, current: Signature) -> None:
        """Verify and load a version unless it is loaded; one that was refused is not read again until it changes."""
        if ref in self.table.loaded:
            return
        began = time.perf_counter()
        checkpoint = await self._verified(ref, current)
        try:
            await self._backend.load_proxy(ref, checkpoint.policy, checkpoint.skam, self.registry.folder(ref))
        except InvalidParameter as error:
            raise self._refuse(ref, current, BadCheckpoint("unsupported", str(error))) from error
        self._holds[ref] = await asyncio.to_thread(self.registry.hold, ref)
        self.table.loaded.add(ref)
        self.trained[ref] = Trained(checkpoint.skam, checkpoint.policy.config)
        self._metrics.set_loaded(self.table.loaded)
        seconds = time.perf_counter() - began
        self._metrics.reload("loaded", seconds)
        logger.info("a proxy was loaded", extra={"proxy": ref.name, "version": ref.version, "seconds": seconds})

    async def _verified(self, ref: ProxyRef, current: Signature) -> Checkpoint:
        """The version, in order; or its refusal, counted and logged once."""
        refusal = self._refused.get(ref)
        if refusal is not None and refusal.holds(current):
            raise refusal.error
        try:
            checkpoint = await self.verify(ref)
        except BadCheckpoint as error:
            raise self._refuse(ref, current, error) from error
        except UnknownProxy as error:
            raise self._refuse(ref, current, BadCheckpoint("missing", str(error))) from error
        except OSError as error:
            raise self._refuse(ref, current, BadCheckpoint(_UNREADABLE, error.strerror or "I/O error")) from error
        self._refused.pop(ref, None)
        for warning in checkpoint.warnings:
            logger.warning("odd, but no reason to refuse", extra={"proxy": str(ref), "detail": warning})
        return checkpoint

    def _refuse(self, ref: ProxyRef, current: Signature, error: BadCheckpoint) -> BadCheckpoint:
        self._refused[ref] = _Refusal(error.reason, error.detail, current, time.monotonic())
        self._metrics.reload(error.reason)
        extra = {"proxy": ref.name, "version": ref.version, "reason": error.reason, "detail": error.detail}
        logger.warning("a proxy was refused", extra=extra)
        return error

    async def _inspect_arrivals(self, published: dict[str, Published]) -> None:
        """Verify versions that came since the first look and that no alias led to."""
        current = {
            ProxyRef(name=name, version=version): found
            for name, proxy in published.items()
            for version, found in proxy.versions.items()
        }
        if self._seen is None:
            self._seen = current
            return
        for ref, found in current.items():
            is_known = ref in self.table.loaded or (ref in self._refused and self._refused[ref].holds(found))
            if not is_known and self._seen.get(ref) != found:
                await self._inspect(ref, found)
        self._seen = current
        named = {
            ProxyRef(name=name, version=version)
            for name, proxy in published.items()
            for version in (proxy.aliases or {}).values()
        }
        self._refused = {ref: refusal for ref, refusal in self._refused.items() if ref in current or ref in named}

    async def _inspect(self, ref: ProxyRef, found: Signature) -> None:
        try:
            await self._verified(ref, found)
        except BadCheckpoint:
            return
        logger.info("a version arrived and is in order", extra={"proxy": ref.name, "version": ref.version})

    async def _unload_unneeded(self) -> None:
        for ref in self.table.unneeded():
            self.table.loaded.discard(ref)
            self.trained.pop(ref, None)
            await self._backend.unload_proxy(ref)
            lock = self._holds.pop(ref, None)
            if lock is not None:
                lock.release()
            self._metrics.set_loaded(self.table.loaded)
            logger.info("a proxy was unloaded", extra={"proxy": ref.name, "version": ref.version})
