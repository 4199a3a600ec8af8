"""Who may use /v1 and who may use /admin, now: keys from settings, and from files that are followed."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy_model.errors import InvalidParameter
from server.access.api_keys import Keyring, NamedKey, parse_keys

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 1.0
_Mark = tuple[int, int, int]
"""Modification time (ns), size and inode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySources:
    """Where keys come from."""

    api_keys: Sequence[str]
    api_keys_file: Path | None
    admin_key: str | None
    admin_key_file: Path | None


class Access:
    """The two doors. Raises `InvalidParameter` for keys that cannot work, and keeps the old ones if a file goes bad."""

    def __init__(self, sources: KeySources) -> None:
        self._sources = sources
        self._files = [path for path in (sources.api_keys_file, sources.admin_key_file) if path is not None]
        self._marks = self._look()
        self.api, self.admin = _read(sources)
        for name, keyring in (("api_keys_file", self.api), ("admin_key_file", self.admin)):
            if keyring and not len(keyring):
                raise InvalidParameter(name, "***", "a file with at least one key")

    async def follow(self) -> None:
        """Read the files again whenever they change, until cancelled."""
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Take over files that have changed. An emptied file lets nobody in; a broken one changes nothing."""
        marks = self._look()
        if marks == self._marks:
            return
        self._marks = marks
        try:
            self.api, self.admin = _read(self._sources)
        except InvalidParameter as error:
            logger.error("the changed keys are not in order; the old ones stay", extra={"reason": str(error)})
        else:
            logger.info("keys were read again", extra={"api_keys": len(self.api), "admin_keys": len(self.admin)})

    def _look(self) -> list[_Mark | None]:
        return [_mark(path) for path in self._files]


def _read(sources: KeySources) -> tuple[Keyring, Keyring]:
    api = _parsed("\n".join(sources.api_keys), "api_keys", sources.api_keys_file)
    admin = _parsed(sources.admin_key or "", "admin_key", sources.admin_key_file)
    if api.digests & admin.digests:
        raise InvalidParameter("admin_key", "***", "another one than the API keys")
    return api, admin


def _parsed(text: str, name: str, file: Path | None) -> Keyring:
    keys: tuple[NamedKey, ...] = parse_keys(text, name)
    is_configured = bool(keys) or file is not None
    if file is not None:
        keys += parse_keys(_text_of(file, f"{name}_file"), f"{name}_file")
    return Keyring(keys, is_configured=is_configured)


def _text_of(file: Path, name: str) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not text"
        raise InvalidParameter(name, str(file), f"a readable file ({reason})") from error


def _mark(path: Path) -> _Mark | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
