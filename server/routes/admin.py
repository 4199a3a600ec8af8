"""/admin/proxies: see, load, unload, promote, roll back. Never open: it has a key of its own."""

import asyncio
from dataclasses import asdict

from fastapi import APIRouter, Request

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import BadCheckpoint, UnknownProxy
from proxy_model.versions.aliases import CANARY, Withdrawn
from proxy_model.versions.registry import ProxyRegistry
from server.body import read_body
from server.dependencies import AdminKey, ServiceDep
from server.errors import ApiError
from server.openapi import json_body
from server.proxies.reloader import Reloader
from server.schemas.admin import (
    Canary,
    GateState,
    Promotion,
    ProxyList,
    ProxyState,
    ProxyVersion,
    Rollback,
    WithdrawnCanary,
)

router = APIRouter(prefix="/admin/proxies", dependencies=[AdminKey])

_MAX_BODY_BYTES = 1 << 16


@router.get("")
async def list_proxies(service: ServiceDep) -> ProxyList:
    """Every proxy: its aliases as served, what is loaded, what is published, what was refused and why."""
    reloader = service.serving().reloader
    names = await asyncio.to_thread(reloader.registry.names)
    return ProxyList(data=[await _describe(reloader, name) for name in names])


@router.post("/load", openapi_extra=json_body(ProxyVersion))
async def load_proxy(request: Request, service: ServiceDep) -> ProxyState:
    """Load a version and keep it, whether an alias names it or not; 400 with the reason if it is refused."""
    reloader = service.serving().reloader
    body = await read_body(request, ProxyVersion, _MAX_BODY_BYTES)
    await reloader.obtain(ProxyRef(name=body.name, version=body.version))
    return await _describe(reloader, body.name)


@router.post("/unload", openapi_extra=json_body(ProxyVersion))
async def unload_proxy(request: Request, service: ServiceDep) -> ProxyState:
    """Let go of a version; 409 while an alias names it. Running answers keep it to their end."""
    reloader = service.serving().reloader
    body = await read_body(request, ProxyVersion, _MAX_BODY_BYTES)
    ref = ProxyRef(name=body.name, version=body.version)
    if reloader.table.is_named(ref):
        message = f"{ref} is named by an alias; promote another version or roll back first."
        raise ApiError(409, message, "proxy_in_use", "version")
    await reloader.unload(ref)
    return await _describe(reloader, body.name)


@router.post("/promote", openapi_extra=json_body(Promotion))
async def promote_proxy(request: Request, service: ServiceDep) -> ProxyState:
    """Point an alias at a version; it answers new requests when this returns. 400 with the reason if it is refused.

    409 for a version that has not passed its gates, unless `force` is true.
    """
    reloader = service.serving().reloader
    body = await read_body(request, Promotion, _MAX_BODY_BYTES)
    ref = ProxyRef(name=body.name, version=body.version)
    await reloader.verify(ref)
    await asyncio.to_thread(reloader.registry.promote, ref.name, ref.version, alias=body.alias, is_forced=body.force)
    await reloader.refresh()
    return await _describe(reloader, body.name)


@router.post("/canary", openapi_extra=json_body(Canary))
async def set_canary(request: Request, service: ServiceDep) -> ProxyState:
    """Let a version answer a share of the requests, from when this returns. 400 with the reason if it is refused."""
    reloader = service.serving().reloader
    body = await read_body(request, Canary, _MAX_BODY_BYTES)
    await reloader.verify(ProxyRef(name=body.name, version=body.version))
    await asyncio.to_thread(reloader.registry.set_canary, body.name, body.version, body.share, is_forced=body.force)
    await reloader.refresh()
    return await _describe(reloader, body.name)


@router.post("/rollback", openapi_extra=json_body(Rollback))
async def rollback_proxy(request: Request, service: ServiceDep) -> ProxyState:
    """Make the previously stable version stable again, or take the canary back; 404 when there is none."""
    reloader = service.serving().reloader
    body = await read_body(request, Rollback, _MAX_BODY_BYTES)
    if body.alias == CANARY:
        await asyncio.to_thread(reloader.registry.withdraw_canary, body.name, reason="by an administrator")
    else:
        await asyncio.to_thread(reloader.registry.rollback, body.name)
    await reloader.refresh()
    return await _describe(reloader, body.name)


async def _describe(reloader: Reloader, name: str) -> ProxyState:
    table = reloader.table
    withdrawn = await asyncio.to_thread(_withdrawn, reloader.registry, name)
    gates = await asyncio.to_thread(_gates, reloader.registry, name)
    return ProxyState(
        name=name,
        aliases=dict(table.aliases.get(name, {})),
        canary_share=table.canary_share(name),
        withdrawn=None if withdrawn is None else WithdrawnCanary(version=withdrawn.version, reason=withdrawn.reason),
        loaded=sorted(ref.version for ref in table.loaded if ref.name == name),
        target_returns={
            str(ref.version): trained.policy.default_target_return
            for ref, trained in sorted(reloader.trained.items())
            if ref.name == name and trained.policy.is_conditioned
        },
        pinned=sorted(ref.version for ref in table.pinned if ref.name == name),
        published=await asyncio.to_thread(reloader.registry.versions, name),
        refused={str(version): reason for version, reason in reloader.refusals(name).items()},
        gates=gates,
    )


def _withdrawn(registry: ProxyRegistry, name: str) -> Withdrawn | None:
    try:
        return registry.aliases(name).withdrawn
    except (UnknownProxy, BadCheckpoint):
        return None


def _gates(registry: ProxyRegistry, name: str) -> dict[str, GateState]:
    try:
        verdicts = registry.verdicts(name).by_version
    except (UnknownProxy, BadCheckpoint):
        return {}
    return {str(version): GateState.model_validate(asdict(each)) for version, each in sorted(verdicts.items())}
