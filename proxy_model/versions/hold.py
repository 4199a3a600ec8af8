"""Which versions some process has loaded: it has a shared lock on their manifests.

A lock ends with its process, however that ends. Who deletes a version unasked takes the whole lock first.
"""

import fcntl
import os
from pathlib import Path

from proxy_model.manifest import MANIFEST


class Hold:
    """A lock on one version, until it is released."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let go of it; a second time does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


def hold(folder: Path) -> Hold | None:
    """Say that the version in `folder` is loaded; None if it is gone or going, or its disk knows no locks."""
    return _locked(folder, os.O_RDONLY, fcntl.LOCK_SH)


def seize(folder: Path) -> Hold | None:
    """Keep others from holding the version; None if somebody does, or nobody can know."""
    return _locked(folder, os.O_RDWR, fcntl.LOCK_EX)


def _locked(folder: Path, access: int, kind: int) -> Hold | None:
    try:
        descriptor = os.open(folder / MANIFEST, access | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return Hold(descriptor)
