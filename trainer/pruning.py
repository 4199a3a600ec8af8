"""Old versions that a run deletes when it has published a new one."""

import logging
from collections.abc import Callable, Collection

from proxy_model.errors import StoreTooNew, StoreUnavailable
from proxy_model.versions.registry import ProxyRegistry

Spared = Callable[[str], Collection[int]]
"""Versions of a proxy that stay though the registry knows nobody who needs them, as those of fine-tuning jobs.

May raise `StoreUnavailable`, `StoreTooNew`."""

logger = logging.getLogger(__name__)


def no_versions(proxy: str) -> Collection[int]:
    """Nobody else needs any."""
    return ()


def prune(registry: ProxyRegistry, proxy: str, keep: int, spared: Spared) -> None:
    """Delete all but the newest `keep` versions that nobody needs; 0 deletes none.

    Nothing is deleted while it cannot be known what is to be spared: the next version's pruning makes up for it.
    """
    if keep == 0:
        return
    try:
        others = spared(proxy)
    except (StoreUnavailable, StoreTooNew) as error:
        logger.warning("old versions stay for now", extra={"proxy": proxy, "reason": str(error)})
        return
    for ref in registry.prune(proxy, keep, others):
        logger.info("an old version is deleted", extra={"proxy": ref.name, "version": ref.version})
