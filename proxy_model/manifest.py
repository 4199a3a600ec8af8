"""The manifest that vouches for a folder: size and sha256 of every file in it, written last.

A folder without a manifest is unfinished. A folder is read through one open descriptor, every file once, and what was
hashed is what is handed out, so that nothing can be exchanged between the check and the use.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_model import disk
from proxy_model.errors import BadCheckpoint

MANIFEST = "manifest.json"

_MAX_MANIFEST_BYTES = 1 << 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest says of one file: its length in bytes and its sha256 in lower-case hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VerifiedFolder:
    """An open folder whose list of names agrees with its manifest; contents are checked as they are read."""

    path: Path
    descriptor: int
    entries: dict[str, Entry]

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["VerifiedFolder"]:
        """Check names and manifest of `path`. Raises `BadCheckpoint`: missing, symlink, format, torn or tampered."""
        descriptor = _open_folder(path)
        try:
            names = _regular_names(descriptor)
            entries = _parse(disk.read_file(MANIFEST, _MAX_MANIFEST_BYTES, dir_fd=descriptor))
            if absent := entries.keys() - names:
                raise BadCheckpoint("missing", f"{min(absent)} is in the manifest but not in the folder")
            if unlisted := names - entries.keys() - {MANIFEST}:
                raise BadCheckpoint("tampered", f"{min(unlisted)} is not in the manifest")
            yield cls(path, descriptor, entries)
        finally:
            os.close(descriptor)

    def read(self, name: str, max_bytes: int) -> bytes:
        """The bytes of `name`, equal in size and sha256 to the manifest. Raises `BadCheckpoint`."""
        entry = self.entries.get(name)
        if entry is None:
            raise BadCheckpoint("missing", f"{name} is not in the manifest")
        data = disk.read_file(name, max_bytes, dir_fd=self.descriptor)
        if len(data) < entry.size:
            raise BadCheckpoint("torn", f"{name} has {len(data)} bytes of {entry.size}")
        if len(data) > entry.size:
            raise BadCheckpoint("tampered", f"{name} has {len(data)} bytes, the manifest says {entry.size}")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BadCheckpoint("tampered", f"the sha256 of {name} is not the manifest's")
        return data


def write_manifest(folder: Path) -> None:
    """Record every file of `folder`, which holds plain files only, and wait until the disk has the names, too."""
    entries = {path.name: describe(path) for path in folder.iterdir()}
    disk.write_file(folder / MANIFEST, _serialised(entries))
    disk.sync_folder(folder)


def describe(path: Path) -> Entry:
    """Size and sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return Entry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object without NaN or infinity; `name` is for the message. Raises `BadCheckpoint("format")`."""
    try:
        found = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint("format", f"{name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadCheckpoint("format", f"{name} is not a JSON object")
    return found


def _serialised(entries: dict[str, Entry]) -> bytes:
    files = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in sorted(entries.items())}
    return json.dumps({"format": 1, "files": files}, indent=2).encode() + b"\n"


def _parse(data: bytes) -> dict[str, Entry]:
    """Every byte counts: a manifest that is not exactly as `write_manifest` writes it is refused."""
    if not data.rstrip().endswith(b"}"):
        raise BadCheckpoint("torn", f"{MANIFEST} ends early")
    found = parse_object(data, MANIFEST)
    if found.get("format") != 1 or not isinstance(found.get("files"), dict):
        raise BadCheckpoint("format", f"{MANIFEST} is not of format 1")
    entries = {name: _entry(name, item) for name, item in found["files"].items()}
    if _serialised(entries) != data:
        raise BadCheckpoint("tampered", f"{MANIFEST} was edited")
    return entries


def _entry(name: str, item: Any) -> Entry:
    size = item.get("size") if isinstance(item, dict) else None
    sha256 = item.get("sha256") if isinstance(item, dict) else None
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadCheckpoint("format", f"{MANIFEST} does not give size and sha256 of {name!r}")
    return Entry(size, sha256)


def _open_folder(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if path.is_symlink():
            raise BadCheckpoint("symlink", f"{path} is a symbolic link") from error
        if path.exists():
            raise BadCheckpoint("format", f"{path} cannot be opened as a folder: {error.strerror}") from error
        raise BadCheckpoint("missing", f"{path} does not exist") from error


def _regular_names(descriptor: int) -> set[str]:
    names = set()
    with os.scandir(descriptor) as listing:
        for entry in listing:
            if entry.is_symlink():
                raise BadCheckpoint("symlink", f"{entry.name} is a symbolic link")
            if not entry.is_file(follow_symlinks=False):
                raise BadCheckpoint("format", f"{entry.name} is not a regular file")
            names.add(entry.name)
    return names


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
