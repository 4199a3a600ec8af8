"""What lies in the folder of published proxies, from outside: names, aliases, whether a version changed."""

from dataclasses import dataclass
from pathlib import Path

from proxy_model.errors import BadCheckpoint, UnknownProxy
from proxy_model.versions.registry import ProxyRegistry

Signature = tuple[tuple[str, int, int, int], ...]
"""Name, size, modification time (ns) and inode of every entry: a refused version is read again once this changes."""


@dataclass(frozen=True, slots=True)
class Published:
    """One proxy on disk."""

    aliases: dict[str, int] | None
    """None when the file of aliases, or of gates, is broken."""

    canary_share: float
    problem: str
    """Why it is."""

    versions: dict[int, Signature]
    obstacles: dict[int, str]
    """Why versions that have not passed their gates are not to be served under an alias."""


def look(registry: ProxyRegistry) -> dict[str, Published] | None:
    """Every published proxy by name; None when the folder cannot be listed, which says nothing."""
    try:
        names = registry.names() if registry.root.is_dir() else []
        return {name: _look_at(registry, name) for name in names}
    except OSError:
        return None


def signature(folder: Path) -> Signature:
    """What changes when somebody touches the version in `folder`; empty when it is gone."""
    try:
        entries = [folder, *sorted(folder.iterdir())]
        stats = [(path.name, path.lstat()) for path in entries]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


def _look_at(registry: ProxyRegistry, name: str) -> Published:
    """Aliases first: a version is in its place, and its gates are passed, before an alias names it."""
    aliases: dict[str, int] | None
    obstacles: dict[int, str] = {}
    try:
        found = registry.aliases(name)
        aliases, share, problem = dict(found.versions), found.canary_share, ""
        obstacles = registry.verdicts(name).obstacles
    except UnknownProxy:
        aliases, share, problem = {}, 0.0, ""
    except BadCheckpoint as error:
        aliases, share, problem = None, 0.0, error.reason
    versions = {version: signature(registry.root / name / str(version)) for version in registry.versions(name)}
    return Published(aliases, share, problem, versions, obstacles)
