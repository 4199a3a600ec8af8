"""Where servers find the policy in training: a version for each rollout, without an alias, deleted when it is over.

Its proxy is called after the one in training and is nobody's: a version waits for gates that are never asked, so that
no alias can name it by mistake. Its card says which run it is of, by a number that lies beside the run's folder before
anything is published: a resumed run deletes what a killed one left.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from proxy_model import disk
from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import BadCheckpoint, UnknownProxy, VersionInUse
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry

logger = logging.getLogger(__name__)

_SUFFIX = ".rollouts"
_LONGEST_NAME = 64
_RUN = "run"


@dataclass(frozen=True, slots=True)
class Lending:
    """Of the run with the number `run_id`."""

    registry: ProxyRegistry
    name: str
    run_id: str

    @staticmethod
    def of(output: Path, registry: ProxyRegistry, proxy: str) -> "Lending":
        """Those of the run in `output`; what a killed process has left of them is deleted."""
        lending = Lending(registry, proxy[: _LONGEST_NAME - len(_SUFFIX)] + _SUFFIX, _run_id(output.absolute()))
        for version in registry.versions(lending.name):
            lending._delete_own(ProxyRef(name=lending.name, version=version))
        return lending

    @contextmanager
    def lent(self, checkpoint: Checkpoint) -> Iterator[ProxyRef]:
        """Publish `checkpoint` until the end of the block."""
        marked = replace(checkpoint, card={**checkpoint.card, _RUN: self.run_id})
        ref = self.registry.publish(self.name, marked, awaits_gates=True)
        try:
            yield ref
        finally:
            self._delete(ref)

    def _delete_own(self, ref: ProxyRef) -> None:
        try:
            is_own = self.registry.verify(ref).card.get(_RUN) == self.run_id
        except (BadCheckpoint, UnknownProxy):
            is_own = False
        if is_own:
            self._delete(ref)

    def _delete(self, ref: ProxyRef) -> None:
        """Unless somebody else has."""
        try:
            with suppress(UnknownProxy):
                self.registry.delete(ref.name, ref.version)
        except VersionInUse:
            logger.warning("a version for rollouts stays, since an alias names it", extra={"proxy": str(ref)})


def _run_id(folder: Path) -> str:
    """Of the run in `folder`: drawn once, and kept beside it."""
    path = folder.with_name(f".{folder.name}.run")
    if not path.exists():
        disk.replace_file(path, secrets.token_hex(16).encode() + b"\n")
    return path.read_text(encoding="ascii").strip()
