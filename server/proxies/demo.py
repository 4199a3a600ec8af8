"""The demo proxies that ship with the program, published at the first start."""

import logging
from pathlib import Path

from proxy_model.errors import BadCheckpoint, FingerprintMismatch
from proxy_model.manifest import MANIFEST
from proxy_model.versions.checkpoint import Fingerprint, read_checkpoint
from proxy_model.versions.proxy_name import is_proxy_name
from proxy_model.versions.registry import ProxyRegistry

SHIPPED = Path(__file__).parents[2] / "demo" / "proxies"

logger = logging.getLogger(__name__)


def publish_demo_proxies(registry: ProxyRegistry, fingerprint: Fingerprint, shipped: Path = SHIPPED) -> None:
    """Publish every shipped proxy of this LLM that has no version yet; those of other LLMs are passed over."""
    for folder in sorted(shipped.iterdir()) if shipped.is_dir() else []:
        if is_proxy_name(folder.name) and not registry.versions(folder.name):
            _publish(registry, folder, fingerprint)


def _publish(registry: ProxyRegistry, folder: Path, fingerprint: Fingerprint) -> None:
    version = _newest_version(folder)
    if version is None:
        return
    try:
        ref = registry.publish(folder.name, read_checkpoint(version, fingerprint))
    except FingerprintMismatch:
        return
    except (BadCheckpoint, OSError) as error:
        logger.warning("a demo proxy could not be published", extra={"proxy": folder.name, "detail": str(error)})
        return
    logger.info("a demo proxy was published", extra={"proxy": ref.name, "version": ref.version})


def _newest_version(folder: Path) -> Path | None:
    """The folder itself if it is a version, else the numbered folder in it with the highest number."""
    if (folder / MANIFEST).is_file():
        return folder
    numbered = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return max(numbered, key=lambda path: int(path.name), default=None)
