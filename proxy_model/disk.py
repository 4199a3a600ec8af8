"""Files that survive a crash when written and cannot play tricks when read."""

import errno
import os
import secrets
import shutil
import stat
from pathlib import Path

from proxy_model.errors import BadCheckpoint

STAGING_PREFIX = ".staging-"
"""Names that start so are unfinished work; whoever holds the lock of the folder may delete them."""


def staging_path(folder: Path) -> Path:
    """A name inside `folder` that nobody else uses, for work that is not to be seen yet."""
    return folder / f"{STAGING_PREFIX}{secrets.token_hex(8)}"


def write_file(path: Path, data: bytes) -> None:
    """Create `path` with `data` and wait until the disk has it. Raises `FileExistsError` and every other `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Let `path` hold `data`; a reader finds the old content or the new one, also after a kill or on a full disk.

    There is one writer at a time. Raises `OSError`.
    """
    aside = aside_path(path)
    aside.unlink(missing_ok=True)
    write_file(aside, data)
    aside.replace(path)
    sync_folder(path.parent)


def aside_path(path: Path) -> Path:
    """Where the one writer of `path` writes before a rename; always the same, so that no leftovers pile up."""
    return path.with_name(f".{path.name}.aside")


def sync_file(path: Path) -> None:
    """Wait until the disk has what some other code wrote to `path`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names that `folder` holds; a rename lasts only after this."""
    sync_file(folder)


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents, so that they last."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Delete a file, a link (never what it points to) or a folder with all it holds; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_file(name: Path | str, max_bytes: int, *, dir_fd: int | None = None) -> bytes:
    """The bytes of a regular file, relative to the open folder `dir_fd` when given.

    Raises `BadCheckpoint`: `missing`, `symlink`, or `format` for what is not a regular file or longer than `max_bytes`,
    before anything is allocated.
    """
    descriptor = _open_regular(name, dir_fd)
    try:
        size = os.fstat(descriptor).st_size
        if size > max_bytes:
            raise BadCheckpoint("format", f"{name} has {size} bytes, at most {max_bytes} are allowed")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes)
    finally:
        os.close(descriptor)


def _open_regular(name: Path | str, dir_fd: int | None) -> int:
    """A descriptor for reading; never follows a link at `name` and never waits for the other end of a pipe."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadCheckpoint("symlink", f"{name} is a symbolic link") from error
        raise BadCheckpoint("missing", f"{name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadCheckpoint("format", f"{name} is not a regular file")
    return descriptor
