"""From what a user calls an LLM to a folder that transformers can load: safetensors, tokenizer and JSON, no code."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HFValidationError,
    HTTPError,  # of whichever HTTP client the hub's library was built on
    RepositoryNotFoundError,
)

from proxy_model.errors import ModelUnavailable
from proxy_model.llm.embedded import DEFAULT_LLM, obtain_default_gguf
from proxy_model.llm.gguf_cache import announced, converted
from proxy_model.manifest import describe
from proxy_model.paths import models_root

_GGUF_MAGIC = b"GGUF"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
_NO_PICKLE = "only weights in safetensors are loaded, because other formats can run code"


@dataclass(frozen=True, slots=True)
class ResolvedLLM:
    """What to load, and what to call it."""

    folder_or_id: str
    """A folder with `config.json`, safetensors and tokenizer, for transformers' `from_pretrained`."""

    name: str
    """The model's name in the API: lower-case letters, digits, '.', '_' and '-'."""


def resolve_llm(source: str, *, home: Path | None = None) -> ResolvedLLM:
    """Find, fetch or convert the LLM that `source` means; the first use of a GGUF file takes a while and says so.

    `source` is `DEFAULT_LLM`, a `.gguf` file, a folder, or else a model id of the Hugging Face hub. Raises
    `ModelUnavailable`, which says what to do.
    """
    if source == DEFAULT_LLM:
        folder = converted(models_root(home) / DEFAULT_LLM, obtain_default_gguf)
        return ResolvedLLM(str(folder), DEFAULT_LLM)
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf":
        return _from_gguf(path, models_root(home))
    if source and path.is_dir():
        return _from_folder(path.resolve())
    return _from_hub(source)


def _from_gguf(path: Path, models: Path) -> ResolvedLLM:
    """Convert any GGUF file; the copy is kept under the file's hash, so a changed file is converted anew."""
    if not path.is_file():
        raise ModelUnavailable(f"there is no file {path}")
    with path.open("rb") as file:
        if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
            raise ModelUnavailable(f"{path} is not a GGUF file")
    name = _model_name(path.stem)
    folder = converted(models / f"{name}-{describe(path).sha256[:16]}", lambda _: path.resolve())
    return ResolvedLLM(str(folder), name)


def _from_folder(folder: Path) -> ResolvedLLM:
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"{folder} holds no config.json; a GGUF file is named itself, not its folder")
    if not any(folder.glob("*.safetensors")):
        raise ModelUnavailable(f"{folder} holds no *.safetensors file; {_NO_PICKLE}")
    return ResolvedLLM(str(folder), _model_name(folder.name))


def _from_hub(source: str) -> ResolvedLLM:
    if not _HUB_ID.fullmatch(source):
        raise ModelUnavailable(f"{source!r} is neither a folder, a .gguf file nor a model id of the hub")
    folder = _snapshot(source)
    return ResolvedLLM(_from_folder(folder).folder_or_id, _model_name(source.rpartition("/")[2]))


def _snapshot(source: str) -> Path:
    """The model's folder in the hub's own cache, which also answers while the hub cannot be reached."""
    try:
        with announced(f"Looking for {source} on the hub"):
            return Path(snapshot_download(source, allow_patterns=_HUB_FILES, ignore_patterns="*/*"))
    except GatedRepoError as error:
        raise ModelUnavailable(f"{source} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise ModelUnavailable(f"the hub has no model {source!r}, or it is private and HF_TOKEN is not set") from error
    except (HFValidationError, OSError, HTTPError) as error:
        raise ModelUnavailable(
            f"{source!r} is no local folder, and it cannot be fetched from the hub ({_first_line(error)}). "
            f"Offline, name a local folder, a .gguf file or {DEFAULT_LLM!r}."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _model_name(text: str) -> str:
    """`text` as it may appear before the ':' of a model name."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "llm"
