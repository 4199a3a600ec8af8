"""Publishing what a resumed run may have published before it was killed: once, whatever happened in between."""

import json
from typing import Any

from proxy_model.bank import ProxyRef
from proxy_model.checkpoint import Checkpoint
from proxy_model.errors import BadCheckpoint
from proxy_model.registry import ProxyRegistry

_NUM_LOOKED_AT = 8
"""The newest versions that are looked at: others may have published since."""


def publish_once(registry: ProxyRegistry, name: str, checkpoint: Checkpoint, alias: str) -> ProxyRef:
    """Publish `checkpoint` as `alias` unless a version with its card is there, which then gets the alias if that lags.

    Raises what `ProxyRegistry.publish` raises.
    """
    found = _published(registry, name, checkpoint.card)
    if found is None:
        return registry.publish(name, checkpoint, aliases=[alias])
    if registry.aliases(name).versions.get(alias, 0) < found.version:
        registry.promote(name, found.version, alias=alias)
    return found


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
