"""The names that point at versions of one proxy: `proxies/<name>/aliases.json`.

    {"stable": 3, "canary": 4, "history": [1, 2], "canary_share": 0.1}

`history` is a stack of what was stable before, newest last. Making a version stable pushes the old one, a rollback
pops: rolling back twice goes two versions back, and never forth again. `canary_share` is the part of the requests for
the proxy that `canary` answers. A canary that was taken back leaves `"withdrawn": {"version": 4, "reason": "..."}`, and
deleted versions the highest of their numbers, `"deleted": 7`, which is not given to another one.
"""

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from proxy_model import disk
from proxy_model.errors import BadCheckpoint, InvalidParameter, UnknownProxy
from proxy_model.manifest import parse_object

STABLE = "stable"
CANARY = "canary"
FILE = "aliases.json"

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MAX_HISTORY = 100
_MAX_REASON = 500
_SHARE = "canary_share"
_WITHDRAWN = "withdrawn"
_DELETED = "deleted"
_RESERVED = ("history", _SHARE, _WITHDRAWN, _DELETED)
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The canary that was taken back last."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Aliases:
    """Which version each alias means, and which ones were stable before."""

    versions: dict[str, int] = field(default_factory=dict)
    history: tuple[int, ...] = ()
    canary_share: float = 0.0
    """In [0, 1]; counts while there is a canary."""

    withdrawn: Withdrawn | None = None
    deleted: int = 0
    """The highest number of a deleted version; 0: none was deleted."""

    @classmethod
    def read(cls, folder: Path) -> "Aliases":
        """The aliases of the proxy in `folder`, none when it has no such file. Raises `BadCheckpoint("format")`."""
        if not os.path.lexists(folder / FILE):
            return cls()
        found = parse_object(disk.read_file(folder / FILE, _MAX_BYTES), FILE)
        history = found.pop("history", [])
        share, withdrawn = found.pop(_SHARE, 0.0), found.pop(_WITHDRAWN, None)
        if not _is_share(share) or not _is_withdrawn(withdrawn):
            raise BadCheckpoint("format", f"{folder / FILE} has a share or a withdrawn canary that is none")
        deleted = found.pop(_DELETED, 0)
        if type(deleted) is not int or deleted < 0:
            raise BadCheckpoint("format", f"{folder / FILE} has a deleted version that is none")
        if not _are_versions(history) or not _are_versions([*found.values()]) or not all(map(_ALIAS.fullmatch, found)):
            raise BadCheckpoint("format", f"{folder / FILE} is not a table of versions")
        taken_back = None if withdrawn is None else Withdrawn(**withdrawn)
        return cls(found, tuple(history), float(share), taken_back, deleted)

    def stage(self, folder: Path) -> Path:
        """Write the aliases aside in `folder`; renaming the returned file to `FILE` makes them count."""
        path = disk.staging_path(folder)
        content: dict[str, Any] = {**self.versions, "history": self.history}
        if self.canary_share:
            content[_SHARE] = self.canary_share
        if self.withdrawn is not None:
            content[_WITHDRAWN] = asdict(self.withdrawn)
        if self.deleted:
            content[_DELETED] = self.deleted
        disk.write_file(path, json.dumps(content).encode() + b"\n")
        return path

    def assigned(self, aliases: Iterable[str], version: int) -> "Aliases":
        """The same with every one of `aliases` pointing at `version`. Raises `InvalidParameter`."""
        changed = self
        for alias in aliases:
            if not _ALIAS.fullmatch(alias) or alias in _RESERVED:
                allowed = f"of a-z, 0-9, '_' and '-', from a letter on, not {', '.join(_RESERVED)}"
                raise InvalidParameter("alias", alias, allowed)
            changed = changed._pointed(alias, version)
        return changed

    def with_canary(self, version: int, share: float) -> "Aliases":
        """The same with `version` answering `share` of the requests. Raises `InvalidParameter`."""
        if not _is_share(share):
            raise InvalidParameter("share", share, "in [0, 1]")
        if self.versions.get(STABLE) == version:
            raise InvalidParameter("version", version, "another one than the stable version")
        return replace(self._pointed(CANARY, version), canary_share=float(share), withdrawn=None)

    def without_canary(self, reason: str) -> "Aliases":
        """The same without a canary; its version and `reason` are kept. Raises `UnknownProxy` if there is none."""
        version = self.versions.get(CANARY)
        if version is None:
            raise UnknownProxy("there is no canary")
        versions = {alias: found for alias, found in self.versions.items() if alias != CANARY}
        withdrawn = Withdrawn(version, reason[:_MAX_REASON])
        return replace(self, versions=versions, canary_share=0.0, withdrawn=withdrawn)

    def rolled_back(self, existing: Collection[int]) -> "Aliases":
        """The same with the last stable version before this one that is still there. Raises `UnknownProxy`."""
        for index in range(len(self.history) - 1, -1, -1):
            if self.history[index] in existing:
                versions = {**self.versions, STABLE: self.history[index]}
                return replace(self, versions=versions, history=self.history[:index])
        raise UnknownProxy("no version was stable before this one")

    def without(self, deleted: Collection[int]) -> "Aliases":
        """The same once the versions `deleted` are gone, with whatever named them."""
        versions = {alias: version for alias, version in self.versions.items() if version not in deleted}
        share = self.canary_share if CANARY in versions else 0.0
        return replace(self, versions=versions, canary_share=share, deleted=max(self.deleted, *deleted))

    def _pointed(self, alias: str, version: int) -> "Aliases":
        old = self.versions.get(alias)
        history = self.history
        if alias == STABLE and old not in (None, version):
            history = (*history, old)[-_MAX_HISTORY:]
        changed = replace(self, versions={**self.versions, alias: version}, history=history)
        return changed._arrived() if alias == STABLE and changed.versions.get(CANARY) == version else changed

    def _arrived(self) -> "Aliases":
        """The canary has become stable: there is none any more."""
        versions = {alias: version for alias, version in self.versions.items() if alias != CANARY}
        return replace(self, versions=versions, canary_share=0.0)


def _are_versions(found: Any) -> bool:
    return isinstance(found, list) and all(type(version) is int and version > 0 for version in found)


def _is_share(found: Any) -> bool:
    return type(found) in (int, float) and 0 <= found <= 1


def _is_withdrawn(found: Any) -> bool:
    if found is None:
        return True
    is_pair = isinstance(found, dict) and found.keys() == {"version", "reason"}
    return is_pair and _are_versions([found["version"]]) and isinstance(found["reason"], str)
