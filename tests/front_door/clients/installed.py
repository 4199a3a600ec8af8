"""Clients in environments of their own, since they disagree about their dependencies; made when missing, then kept."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

PYTHON_CLIENTS = {
    "instructor": "instructor==1.17.0",
    "langchain-openai": "langchain-openai==1.7.3",
    "litellm": "litellm[mcp]==1.106.2",
    "llm": "llm==0.36",
    "openapi-python-client": "openapi-python-client==0.29.1",
}
"""What pip installs. litellm takes no tools without its extra."""

NODE_CLIENT = ("openai", "7.55.0")
"""A package of npm."""

_BESIDE_NODE_CLIENT = {"zod": "4.6.7"}
"""What its helpers read schemas from."""

SCRIPTS = Path(__file__).parent
_ROOT = Path(__file__).parents[3] / "build" / "clients"
_PATIENCE_SECONDS = 120


def programs_of(client: str) -> Path:
    """The folder with the `python` that has `client`, and with its command line if it has one."""
    requirement = PYTHON_CLIENTS[client]

    def install(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, requirement], check=True)

    return _installed(re.sub(r"[^\w.-]+", "-", requirement), install) / "bin"


def node_modules() -> Path:
    """The folder that has `node_modules` with the client in it."""
    name, version = NODE_CLIENT

    def install(folder: Path) -> None:
        folder.mkdir()
        packages = {name: version, **_BESIDE_NODE_CLIENT}
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": packages}))
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)

    return _installed(f"node-{name}-{version}-zod", install)


def run(*command: str | Path, **environment: str) -> str:
    """Its standard output; fails with its standard error. Nothing of the caller's environment passes but PATH."""
    path = "/usr/local/bin:/usr/bin:/bin"
    finished = subprocess.run(
        [str(part) for part in command],
        env={"PATH": path, "LANG": "C.UTF-8"} | environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def told(output: str) -> dict[str, Any]:
    """What a script printed last, as JSON."""
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """A folder that `install` has filled completely, now or earlier."""
    folder, done = _ROOT / name, _ROOT / f"{name}.done"
    _ROOT.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            install(folder)
            done.touch()
    return folder
