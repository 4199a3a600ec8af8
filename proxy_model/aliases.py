"""The names that point at versions of one proxy: `proxies/<name>/aliases.json`.

    {"stable": 3, "canary": 4, "history": [1, 2]}

`history` is a stack of what was stable before, newest last. Making a version stable pushes the old one, a rollback
pops: rolling back twice goes two versions back, and never forth again.
"""

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxy_model import disk
from proxy_model.errors import BadCheckpoint, InvalidParameter, UnknownProxy
from proxy_model.manifest import parse_object

STABLE = "stable"
FILE = "aliases.json"

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MAX_HISTORY = 100
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Aliases:
    """Which version each alias means, and which ones were stable before."""

    versions: dict[str, int] = field(default_factory=dict)
    history: tuple[int, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Aliases":
        """The aliases of the proxy in `folder`, none when it has no such file. Raises `BadCheckpoint("format")`."""
        if not os.path.lexists(folder / FILE):
            return cls()
        found = parse_object(disk.read_file(folder / FILE, _MAX_BYTES), FILE)
        history = found.pop("history", [])
        if not _are_versions(history) or not _are_versions([*found.values()]) or not all(map(_ALIAS.fullmatch, found)):
            raise BadCheckpoint("format", f"{folder / FILE} is not a table of versions")
        return cls(found, tuple(history))

    def stage(self, folder: Path) -> Path:
        """Write the aliases aside in `folder`; renaming the returned file to `FILE` makes them count."""
        path = disk.staging_path(folder)
        disk.write_file(path, json.dumps({**self.versions, "history": self.history}).encode() + b"\n")
        return path

    def assigned(self, aliases: Iterable[str], version: int) -> "Aliases":
        """The same with every one of `aliases` pointing at `version`. Raises `InvalidParameter`."""
        changed = self
        for alias in aliases:
            if not _ALIAS.fullmatch(alias) or alias == "history":
                raise InvalidParameter("alias", alias, "of a-z, 0-9, '_' and '-', from a letter on, not 'history'")
            changed = changed._pointed(alias, version)
        return changed

    def rolled_back(self, existing: Collection[int]) -> "Aliases":
        """The same with the last stable version before this one that is still there. Raises `UnknownProxy`."""
        for index in range(len(self.history) - 1, -1, -1):
            if self.history[index] in existing:
                versions = {**self.versions, STABLE: self.history[index]}
                return replace(self, versions=versions, history=self.history[:index])
        raise UnknownProxy("no version was stable before this one")

    def _pointed(self, alias: str, version: int) -> "Aliases":
        old = self.versions.get(alias)
        history = self.history
        if alias == STABLE and old not in (None, version):
            history = (*history, old)[-_MAX_HISTORY:]
        return replace(self, versions={**self.versions, alias: version}, history=history)


def _are_versions(found: Any) -> bool:
    return isinstance(found, list) and all(type(version) is int and version > 0 for version in found)
