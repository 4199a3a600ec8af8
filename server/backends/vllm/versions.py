"""The proxies of vLLM's workers, as the server knows them: who is loaded, and who still decides for somebody."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import InvalidParameter, UnknownProxy
from vllm_plugin.bank import PREPARING, READY

_POLL_SECONDS = 0.02

CallWorkers = Callable[..., Awaitable[list[Any]]]
"""`collective_rpc`: a method's name and its arguments; one result for every worker."""


class WorkerVersions:
    """Loads and unloads over `call`. A version stays in the workers until the last request that names it has ended."""

    def __init__(self, call: CallWorkers) -> None:
        self._call = call
        self._loaded: dict[ProxyRef, bool] = {}
        self._holders: Counter[ProxyRef] = Counter()
        self._leaving: set[ProxyRef] = set()
        self._lock = asyncio.Lock()
        self._farewells: set[asyncio.Task[None]] = set()

    def refs(self) -> list[ProxyRef]:
        """Versions that new requests may name."""
        return sorted(self._loaded)

    def is_conditioned(self, ref: ProxyRef) -> bool:
        """Whether it can be told what to aim at. Raises `UnknownProxy`."""
        if ref not in self._loaded:
            raise UnknownProxy(f"proxy {ref} is not loaded")
        return self._loaded[ref]

    async def load(self, ref: ProxyRef, policy: ProxyPolicy, folder: Path) -> None:
        """Have every worker read `folder` beside its steps, then let it in. Raises `InvalidParameter`."""
        async with self._lock:
            await self._call("proxy_prepare", ref.name, ref.version, str(folder))
            await settled(lambda: self._call("proxy_state", ref.name, ref.version), "folder", str(ref))
            await self._call("proxy_admit", ref.name, ref.version)
            self._loaded[ref] = policy.config.is_conditioned
            self._leaving.discard(ref)

    async def unload(self, ref: ProxyRef) -> None:
        """Take it away from new requests. Raises `UnknownProxy`."""
        self.is_conditioned(ref)
        del self._loaded[ref]
        self._leaving.add(ref)
        await self._let_go(ref)

    def hold(self, ref: ProxyRef | None) -> None:
        """A request begins that names it."""
        if ref is not None:
            self._holders[ref] += 1

    def release(self, ref: ProxyRef | None) -> None:
        """The request has ended."""
        if ref is None:
            return
        self._holders[ref] -= 1
        if ref in self._leaving and not self._holders[ref]:
            farewell = asyncio.get_running_loop().create_task(self._let_go(ref))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    async def _let_go(self, ref: ProxyRef) -> None:
        async with self._lock:
            if ref in self._leaving and not self._holders[ref]:
                self._leaving.discard(ref)
                del self._holders[ref]
                await self._call("proxy_unload", ref.name, ref.version)


async def settled(ask: Callable[[], Awaitable[list[str]]], name: str, value: str) -> None:
    """Ask until every worker is ready. Raises `InvalidParameter` with what one of them says instead."""
    states = await ask()
    while PREPARING in states:
        await asyncio.sleep(_POLL_SECONDS)
        states = await ask()
    for state in states:
        if state != READY:
            raise InvalidParameter(name, value, f"readable by every worker of the engine ({state})")
