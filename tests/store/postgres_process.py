"""A Postgres of one's own: a new data folder, no network, not root, gone at the end."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FOLDERS = "/usr/lib/postgresql"
_UNPRIVILEGED = ("postgres", "nobody")


@contextmanager
def running_postgres() -> Iterator[str]:
    """Its URL. Skips the test where no Postgres is installed."""
    binaries = _binaries()
    user = _unprivileged_user()
    # A socket's path may have 107 bytes, fewer than some temporary folders take.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        _run(user, binaries / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        _run(user, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            _run(user, binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(user: str | None, *command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)


def _binaries() -> Path:
    """The folder of initdb and pg_ctl, of the newest version that is installed."""
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path(_FOLDERS).glob("*/bin"), key=lambda path: float(path.parent.name))
    if not folders:
        pytest.skip("no Postgres is installed (Debian's package is `postgresql`)")
    return folders[-1]


def _unprivileged_user() -> str | None:
    """Postgres refuses to be root; None when we are not."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    found = next((name for name in _UNPRIVILEGED if name in names), None)
    if found is None:
        pytest.skip("Postgres refuses to run as root, and there is nobody else")
    return found
