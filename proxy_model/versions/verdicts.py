"""What the gates said of the versions of one proxy: `proxies/<name>/gates.json`.

    {"4": {"state": "failed", "against": "stable 3", "failures": ["length: ..."], "is_overridden": false,
           "prompts": "64 of 300 prompts"}}

A version that is to be gated is `pending` from before it can be seen until its gates have been asked. No alias may
name a version that is pending or has failed, unless somebody overrode that. A version without an entry has no gates.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from proxy_model import disk
from proxy_model.errors import BadCheckpoint, GatesNotPassed
from proxy_model.manifest import parse_object

FILE = "gates.json"
State = Literal["pending", "passed", "failed"]

_MAX_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """On one version."""

    state: State
    against: str = ""
    """What it was compared with; empty while it is pending."""

    failures: tuple[str, ...] = ()
    """Which gates it did not pass and by how much, a line each."""

    is_overridden: bool = False
    """Somebody wants it to be served nevertheless."""

    prompts: str = ""
    """On how many of the held-out prompts its gates were asked, in words; empty while that is not known."""

    @property
    def obstacle(self) -> str | None:
        """Why no alias may name the version; None when one may."""
        if self.state == "passed" or self.is_overridden:
            return None
        return "its gates have not been asked yet" if self.state == "pending" else "; ".join(self.failures)


PENDING = Verdict(state="pending")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """By version."""

    by_version: Mapping[int, Verdict] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Verdicts":
        """Those of the proxy in `folder`, none when it has no such file. Raises `BadCheckpoint("format")`."""
        if not os.path.lexists(folder / FILE):
            return cls()
        found = parse_object(disk.read_file(folder / FILE, _MAX_BYTES), FILE)
        try:
            return cls({int(version): _verdict(each) for version, each in found.items()})
        except (ValueError, TypeError, KeyError) as error:
            raise BadCheckpoint("format", f"{folder / FILE} is not a table of verdicts") from error

    def stage(self, folder: Path) -> Path:
        """Write them aside in `folder`; renaming the returned file to `FILE` makes them count."""
        path = disk.staging_path(folder)
        content = {str(version): asdict(each) for version, each in sorted(self.by_version.items())}
        disk.write_file(path, json.dumps(content).encode() + b"\n")
        return path

    def having(self, version: int, verdict: Verdict | None) -> "Verdicts":
        """The same with another verdict on `version`, or with none."""
        others = {number: each for number, each in self.by_version.items() if number != version}
        return Verdicts(others if verdict is None else {**others, version: verdict})

    def overridden(self, version: int) -> "Verdicts":
        """The same, but `version` may be named by aliases whatever its gates said."""
        found = self.by_version.get(version)
        if found is None or found.obstacle is None:
            return self
        return self.having(version, replace(found, is_overridden=True))

    @property
    def obstacles(self) -> dict[int, str]:
        """Why no alias may name a version, by the versions that none may."""
        found = {version: each.obstacle for version, each in self.by_version.items()}
        return {version: obstacle for version, obstacle in found.items() if obstacle is not None}

    def require_passed(self, name: str, version: int) -> None:
        """Raises `GatesNotPassed`."""
        if version in self.obstacles:
            raise GatesNotPassed(f"{name}@{version}", self.obstacles[version])


def _verdict(found: Any) -> Verdict:
    """Raises `TypeError`, `ValueError` or `KeyError` for what is none."""
    verdict = Verdict(**{**found, "failures": tuple(found["failures"])})
    texts = (verdict.against, verdict.prompts, *verdict.failures)
    if verdict.state not in get_args(State) or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a verdict")
    if type(verdict.is_overridden) is not bool:
        raise ValueError("not a verdict")
    return verdict
