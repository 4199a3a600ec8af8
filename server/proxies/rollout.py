"""Roll-outs: which requests a canary answers, and what happens when its guard speaks up."""

import asyncio
import hashlib
import logging

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import ProxyRlhfError
from proxy_model.versions.aliases import CANARY, STABLE
from server.proxies.canary_guard import Breach, CanaryGuard
from server.proxies.proxy_table import ProxyTable
from server.proxies.reloader import Reloader
from server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_JUDGE_SECONDS = 0.5


def choose(table: ProxyTable, name: str, who: str) -> ProxyRef:
    """The version of `name` that answers `who` when none was asked for. Raises `UnknownProxy`.

    The same one every time, in every replica, until the canary or its share changes; when the share grows, nobody who
    had the canary loses it.
    """
    stable, share = table.resolve(name, STABLE), table.canary_share(name)
    if share <= 0 or CANARY not in table.aliases.get(name, {}):
        return stable
    canary = table.resolve(name, CANARY)
    digest = hashlib.sha256(f"{canary}\n{who}".encode("utf-8", "replace")).digest()
    return canary if int.from_bytes(digest[:8]) < share * 2**64 else stable


async def guard_canaries(guard: CanaryGuard, reloader: Reloader, metrics: Metrics) -> None:
    """Withdraw canaries that leave their bands, until cancelled."""
    while True:
        guard.watch(_pairs(reloader.table))
        await asyncio.sleep(_JUDGE_SECONDS)
        for breach in guard.breaches():
            await _withdraw(breach, reloader, metrics)


def _pairs(table: ProxyTable) -> list[tuple[ProxyRef, ProxyRef]]:
    names = set(table.names(CANARY)) & set(table.names(STABLE))
    pairs = [(table.resolve(name, CANARY), table.resolve(name, STABLE)) for name in sorted(names)]
    return [(canary, stable) for canary, stable in pairs if canary != stable]


async def _withdraw(breach: Breach, reloader: Reloader, metrics: Metrics) -> None:
    canary = breach.canary
    extra = {"proxy": canary.name, "version": canary.version, "measure": breach.measure, "reason": breach.reason}
    try:
        is_done = await asyncio.to_thread(
            reloader.registry.withdraw_canary, canary.name, reason=breach.reason, version=canary.version
        )
    except (ProxyRlhfError, OSError):
        logger.exception("a canary is out of its band and could not be rolled back", extra=extra)
        return
    if is_done:
        logger.warning("a canary was rolled back by its guard", extra=extra)
        metrics.canary_rollback(breach.measure)
    await reloader.refresh()
