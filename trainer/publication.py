"""Publishing what a resumed run may have published before it was killed: once, whatever happened in between.

A version that has gates is published without an alias, then its gates are asked, then their verdict is kept, and only
then an alias may name it. Killed between any two of these, the next attempt goes on behind the last one.
"""

import json
from collections.abc import Callable
from typing import Any

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import BadCheckpoint
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import Verdict

_NUM_LOOKED_AT = 8
"""The newest versions that are looked at: others may have published since."""


def publish_once(registry: ProxyRegistry, name: str, checkpoint: Checkpoint, alias: str) -> ProxyRef:
    """Publish `checkpoint` as `alias` unless a version with its card is there, which then gets the alias if that lags.

    Raises what `ProxyRegistry.publish` raises.
    """
    found = _published(registry, name, checkpoint.card)
    if found is None:
        return registry.publish(name, checkpoint, aliases=[alias])
    _name(registry, found, alias)
    return found


def publish_gated(
    registry: ProxyRegistry,
    name: str,
    checkpoint: Checkpoint,
    alias: str,
    ask_gates: Callable[[ProxyRef], Verdict],
    *,
    is_resumed: bool,
) -> tuple[ProxyRef, Verdict]:
    """Publish `checkpoint`, unless it `is_resumed` and there, and point `alias` at it if its gates let it through.

    Raises what `ProxyRegistry.publish` raises.
    """
    found = _published(registry, name, checkpoint.card) if is_resumed else None
    ref = found or registry.publish(name, checkpoint, awaits_gates=True)
    verdict = registry.verdicts(name).by_version.get(ref.version)
    if verdict is None or verdict.state == "pending":
        verdict = ask_gates(ref)
        registry.judge(ref, verdict)
    if verdict.obstacle is None:
        _name(registry, ref, alias)
    return ref, verdict


def _name(registry: ProxyRegistry, ref: ProxyRef, alias: str) -> None:
    """Give a version its alias, unless that has gone on to a newer one."""
    if registry.aliases(ref.name).versions.get(alias, 0) < ref.version:
        registry.promote(ref.name, ref.version, alias=alias)


def _published(registry: ProxyRegistry, name: str, card: dict[str, Any]) -> ProxyRef | None:
    wanted = _origin(json.loads(json.dumps(card)))
    for version in reversed(registry.versions(name)[-_NUM_LOOKED_AT:]):
        ref = ProxyRef(name=name, version=version)
        try:
            if _origin(registry.verify(ref).card) == wanted:
                return ref
        except BadCheckpoint:
            continue
    return None


def _origin(card: dict[str, Any]) -> tuple[Any, Any]:
    """What tells two versions apart: of which run, and after which iteration. Clocks on the card do not count."""
    return card.get("settings"), card.get("iterations")
