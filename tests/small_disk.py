"""A disk that a test may fill."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FILLER = "filler"


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """A new disk of `kib` KiB at the new folder `folder`. Skips the test where mounting is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave not one free byte on the disk."""
    with (folder / _FILLER).open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1 << 6, 1):
            _append_while_there_is_room(file.fileno(), b"x" * size)


def make_room(folder: Path) -> None:
    """Take back what `fill` did."""
    (folder / _FILLER).unlink()


def _append_while_there_is_room(descriptor: int, data: bytes) -> None:
    try:
        while True:
            os.write(descriptor, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
