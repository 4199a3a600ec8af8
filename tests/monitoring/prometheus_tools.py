"""Prometheus and promtool: the installed ones, or Debian's package unpacked into a cache folder, without being root."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

_UNPACKED = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "proxy-rlhf" / "prometheus"


@cache
def find_tool(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where neither the system nor apt has them."""
    installed = shutil.which(name)
    if installed is not None:
        return installed
    unpacked = _UNPACKED / "usr" / "bin" / name
    if not unpacked.exists():
        _unpack()
    return str(unpacked)


def _unpack() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("Prometheus is not installed, and there is no apt to fetch Debian's package")
    _UNPACKED.mkdir(parents=True, exist_ok=True)
    fetched = subprocess.run(
        ["apt-get", "download", "prometheus"], cwd=_UNPACKED, capture_output=True, text=True, timeout=240
    )
    packages = sorted(_UNPACKED.glob("prometheus_*.deb"))
    if not packages:
        pytest.skip(f"Prometheus is not installed, and apt does not have it: {fetched.stderr.strip()[-200:]}")
    subprocess.run(["dpkg-deb", "-x", str(packages[-1]), str(_UNPACKED)], check=True, timeout=120)
