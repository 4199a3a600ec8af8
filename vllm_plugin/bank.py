"""Published versions, read by a worker beside its steps and let in between two of them."""

import logging
import threading
from pathlib import Path

from torch import Tensor

from proxy_model.decision.bank import LoadedProxy, ProxyBank, ProxyRef
from proxy_model.errors import ProxyRlhfError
from proxy_model.versions.checkpoint import Fingerprint, read_checkpoint

logger = logging.getLogger(__name__)

PREPARING, READY = "preparing", "ready"


class WorkerBank:
    """A bank whose versions are prepared on a thread of their own. Other methods belong to the worker's thread."""

    def __init__(self, fingerprint: Fingerprint, embedding: Tensor) -> None:
        self.loaded = ProxyBank()
        self._fingerprint = fingerprint
        self._embedding = embedding
        self._prepared: dict[ProxyRef, LoadedProxy] = {}
        self._states: dict[ProxyRef, str] = {}

    def prepare(self, ref: ProxyRef, folder: Path) -> None:
        """Begin to read a version, with every check, and to compute its table."""
        self._states[ref] = PREPARING
        threading.Thread(target=self._prepare, args=(ref, folder), name=f"proxy {ref}", daemon=True).start()

    def state(self, ref: ProxyRef) -> str:
        """`PREPARING`, `READY`, or why it cannot be loaded."""
        return self._states[ref]

    def admit(self, ref: ProxyRef) -> None:
        """Let a version that is ready decide from the next step on."""
        del self._states[ref]
        self.loaded.add(self._prepared.pop(ref))

    def _prepare(self, ref: ProxyRef, folder: Path) -> None:
        try:
            checkpoint = read_checkpoint(folder, self._fingerprint)
            self._prepared[ref] = LoadedProxy(ref, checkpoint.policy, checkpoint.skam, self._embedding)
            self._states[ref] = READY
        except (ProxyRlhfError, OSError, RuntimeError) as error:
            logger.warning("%s cannot be loaded: %s", ref, error)
            self._states[ref] = f"{type(error).__name__}: {error}"
