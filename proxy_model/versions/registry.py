"""The folder of published proxies: `<root>/<name>/<version>/`, its aliases and gates, and how a new version gets there.

Publishing writes aside, waits for the disk, renames the version into place and then replaces the alias file. Killed at
any point, or out of disk, the old alias still means the old version; what was left aside is deleted by the next
`publish` or `remove_leftovers`. Writers of one name take turns by a file lock that dies with its process; readers need
no lock.
"""

import errno
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from proxy_model import disk
from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import InvalidParameter, UnknownProxy, VersionInUse
from proxy_model.versions.aliases import CANARY, STABLE, Aliases
from proxy_model.versions.aliases import FILE as ALIASES
from proxy_model.versions.checkpoint import Checkpoint, Fingerprint, read_checkpoint, write_checkpoint
from proxy_model.versions.hold import Hold, hold, seize
from proxy_model.versions.proxy_name import ALLOWED as ALLOWED_NAMES
from proxy_model.versions.proxy_name import is_proxy_name
from proxy_model.versions.verdicts import FILE as VERDICTS
from proxy_model.versions.verdicts import PENDING, Verdict, Verdicts

_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_LOCK = ".lock"

logger = logging.getLogger(__name__)


class ProxyRegistry:
    """Published proxies under `root`, which need not exist yet. Threads and processes may share a root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Every proxy with at least one version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if self.versions(path.name))

    def versions(self, name: str) -> list[int]:
        """The published versions, ascending, good or bad; none for a name that is not there."""
        if not is_proxy_name(name) or not _is_folder(self.root / name):
            return []
        return sorted(int(path.name) for path in (self.root / name).iterdir() if _VERSION.fullmatch(path.name))

    def aliases(self, name: str) -> Aliases:
        """What `stable` and the other aliases of `name` mean now. Raises `UnknownProxy`, `BadCheckpoint`."""
        return Aliases.read(self._known(name))

    def resolve(self, name: str, version_or_alias: int | str = STABLE) -> ProxyRef:
        """The version that a number, its text or an alias means. Raises `UnknownProxy`, `BadCheckpoint`."""
        text = str(version_or_alias)
        version = int(text) if _VERSION.fullmatch(text) else self.aliases(name).versions.get(text)
        if version is None or version not in self.versions(name):
            raise UnknownProxy(f"no proxy {name!r} with version or alias {text!r} is published")
        return ProxyRef(name=name, version=version)

    def path(self, ref: ProxyRef) -> Path:
        """The folder of a version. Raises `UnknownProxy`."""
        if ref.version not in self.versions(ref.name):
            raise UnknownProxy(f"{ref.name}@{ref.version} is not published")
        return self.folder(ref)

    def folder(self, ref: ProxyRef) -> Path:
        """Where a version is or would be."""
        return self.root / ref.name / str(ref.version)

    def verify(self, ref: ProxyRef, llm_fingerprint: Fingerprint | None = None) -> Checkpoint:
        """Read a version with every check. Raises `UnknownProxy`, `BadCheckpoint`."""
        return read_checkpoint(self.path(ref), llm_fingerprint)

    def verdicts(self, name: str) -> Verdicts:
        """What the gates said of the versions of `name`. Raises `UnknownProxy`, `BadCheckpoint`."""
        return Verdicts.read(self._known(name))

    def hold(self, ref: ProxyRef) -> Hold | None:
        """Say that a version is loaded, which keeps it from being pruned; None where that cannot be said."""
        return hold(self.folder(ref))

    def make_ready(self, name: str) -> None:
        """Make the folder of `name`, and learn now whether `publish` may write there.

        Raises `InvalidParameter`, `OSError`.
        """
        self._made(name)
        with self._writing(name):
            pass

    def publish(
        self, name: str, checkpoint: Checkpoint, *, aliases: Sequence[str] = (STABLE,), awaits_gates: bool = False
    ) -> ProxyRef:
        """Add the next version of `name` and point `aliases` at it; without any if it `awaits_gates`.

        Raises `InvalidParameter`, `BadCheckpoint` for a checkpoint that could not be read back, and `OSError`.
        """
        Aliases().assigned(aliases, 1)
        folder = self._made(name)
        with self._writing(name):
            version = self._next_version(name)
            staging = disk.staging_path(folder)
            write_checkpoint(staging, checkpoint)
            read_checkpoint(staging, None)
            staged_aliases = Aliases.read(folder).assigned(() if awaits_gates else aliases, version).stage(folder)
            self._note(name, Verdicts.read(folder).having(version, PENDING if awaits_gates else None))
            staging.rename(folder / str(version))
            disk.sync_folder(folder)
            _commit(staged_aliases, ALIASES)
        return ProxyRef(name=name, version=version)

    def judge(self, ref: ProxyRef, verdict: Verdict) -> None:
        """Keep what the gates said of a version, in place of what they said before.

        Raises `UnknownProxy`, `BadCheckpoint`.
        """
        self.path(ref)
        with self._writing(ref.name):
            self._note(ref.name, self.verdicts(ref.name).having(ref.version, verdict))

    def promote(self, name: str, version: int, *, alias: str = STABLE, is_forced: bool = False) -> ProxyRef:
        """Point `alias` at a published version that is in order and has passed its gates, or `is_forced` past them.

        Raises `UnknownProxy`, `BadCheckpoint`, `GatesNotPassed`.
        """
        ref = self.resolve(name, version)
        self.verify(ref)
        with self._writing(name):
            changed = self.aliases(name).assigned([alias], version)
            self._pass_gates(ref, is_forced=is_forced)
            _commit(changed.stage(self.root / name), ALIASES)
        return ref

    def set_canary(self, name: str, version: int, share: float, *, is_forced: bool = False) -> ProxyRef:
        """Let a version that may be promoted answer `share` of the requests for `name`.

        Raises `UnknownProxy`, `BadCheckpoint`, `InvalidParameter`, `GatesNotPassed`.
        """
        ref = self.resolve(name, version)
        self.verify(ref)
        with self._writing(name):
            changed = self.aliases(name).with_canary(version, share)
            self._pass_gates(ref, is_forced=is_forced)
            _commit(changed.stage(self.root / name), ALIASES)
        return ref

    def withdraw_canary(self, name: str, *, reason: str, version: int | None = None) -> bool:
        """Take the canary back and keep the reason; False when `version` is given and is not the canary any more.

        Raises `UnknownProxy` when there is none, `BadCheckpoint`.
        """
        folder = self._known(name)
        with self._writing(name):
            aliases = Aliases.read(folder)
            if version is not None and aliases.versions.get(CANARY) != version:
                return False
            _commit(aliases.without_canary(reason).stage(folder), ALIASES)
        return True

    def rollback(self, name: str) -> ProxyRef:
        """Make the previously stable version stable again. Raises `UnknownProxy` without one, `BadCheckpoint`."""
        folder = self._known(name)
        with self._writing(name):
            aliases = Aliases.read(folder).rolled_back(self.versions(name))
            ref = ProxyRef(name=name, version=aliases.versions[STABLE])
            self.verify(ref)
            _commit(aliases.stage(folder), ALIASES)
        return ref

    def delete(self, name: str, version: int | None = None) -> list[ProxyRef]:
        """Delete a version that no alias names; None: all of them, aliases first. Returns those that are gone.

        Their numbers are not used again. Raises `UnknownProxy`, `BadCheckpoint`, `VersionInUse`.
        """
        folder = self._known(name)
        with self._writing(name):
            numbers = self.versions(name) if version is None else [self.resolve(name, version).version]
            if version in Aliases.read(folder).versions.values():
                raise VersionInUse(f"{name}@{version}")
            return self._take_away(name, numbers)

    def prune(self, name: str, keep: int, spared: Collection[int] = ()) -> list[ProxyRef]:
        """Delete all but the newest `keep` versions; returns those that are gone.

        The `spared` ones stay, and those that an alias names, that a rollback would return to, whose gates are to be
        asked, or that some process has loaded. Raises `InvalidParameter`, `UnknownProxy`, `BadCheckpoint`.
        """
        if keep < 1:
            raise InvalidParameter("keep", keep, "at least 1")
        folder = self._known(name)
        with self._writing(name), ExitStack() as seized:
            needed = {*spared, *_needed(Aliases.read(folder), Verdicts.read(folder), self.versions(name))}
            numbers = []
            for number in self.versions(name)[:-keep]:
                lock = None if number in needed else seize(folder / str(number))
                if lock is not None:
                    seized.callback(lock.release)
                    numbers.append(number)
            return self._take_away(name, numbers) if numbers else []

    def remove_leftovers(self) -> list[Path]:
        """Delete what killed writers left; returns it. A writer that is alive is waited for, never disturbed."""
        removed: list[Path] = []
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if is_proxy_name(folder.name) and _is_folder(folder) and _leftovers(folder):
                removed += self._remove_leftovers_of(folder)
        return removed

    def _remove_leftovers_of(self, folder: Path) -> list[Path]:
        try:
            with FileLock(folder / _LOCK):
                return _remove_leftovers(folder)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            logger.warning("%s holds unfinished versions that cannot be deleted: %s", folder, error.strerror)
            return []

    def _made(self, name: str) -> Path:
        """The folder of `name`, which need not have been there. Raises `InvalidParameter`, `OSError`."""
        if not is_proxy_name(name):
            raise InvalidParameter("name", name, ALLOWED_NAMES)
        folder = self.root / name
        disk.make_folder(folder)
        return folder

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Be the only writer of `name`; leaves nothing unfinished behind, neither others' nor one's own."""
        folder = self.root / name
        with FileLock(folder / _LOCK):
            _remove_leftovers(folder)
            try:
                yield
            finally:
                _remove_leftovers(folder)

    def _take_away(self, name: str, numbers: Sequence[int]) -> list[ProxyRef]:
        """Put versions out of sight, and what named them; their files are deleted by the end of `_writing`."""
        folder = self.root / name
        verdicts = Verdicts.read(folder)
        _commit(Aliases.read(folder).without(numbers).stage(folder), ALIASES)
        for number in numbers:
            verdicts = verdicts.having(number, None)
            (folder / str(number)).rename(disk.staging_path(folder))
        disk.sync_folder(folder)
        self._note(name, verdicts)
        return [ProxyRef(name=name, version=number) for number in numbers]

    def _pass_gates(self, ref: ProxyRef, *, is_forced: bool) -> None:
        """An override counts before the alias does, so that whoever follows the alias knows of it."""
        verdicts = self.verdicts(ref.name)
        if is_forced:
            self._note(ref.name, verdicts.overridden(ref.version))
        else:
            verdicts.require_passed(ref.name, ref.version)

    def _note(self, name: str, verdicts: Verdicts) -> None:
        """Replace the verdicts, where that changes any."""
        folder = self.root / name
        if verdicts != Verdicts.read(folder):
            _commit(verdicts.stage(folder), VERDICTS)

    def _next_version(self, name: str) -> int:
        """One past every number ever known, so that a deleted version's number is not given to another one."""
        aliases = Aliases.read(self.root / name)
        return 1 + max([0, *self.versions(name), *aliases.versions.values(), *aliases.history, aliases.deleted])

    def _known(self, name: str) -> Path:
        if not self.versions(name):
            raise UnknownProxy(f"no proxy {name!r} is published")
        return self.root / name


def _needed(aliases: Aliases, verdicts: Verdicts, existing: Sequence[int]) -> set[int]:
    """Versions that an alias names or that a rollback would return to, and those whose gates are to be asked."""
    needed = {*aliases.versions.values(), *(number for number, each in verdicts.by_version.items() if each == PENDING)}
    with suppress(UnknownProxy):
        needed.add(aliases.rolled_back(existing).versions[STABLE])
    return needed


def _commit(staged: Path, name: str) -> None:
    staged.replace(staged.with_name(name))
    disk.sync_folder(staged.parent)


def _leftovers(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith(disk.STAGING_PREFIX))


def _remove_leftovers(folder: Path) -> list[Path]:
    leftovers = _leftovers(folder)
    for path in leftovers:
        disk.remove(path)
    return leftovers


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
