"""GGUF files, converted once to bfloat16 safetensors with tokenizer and chat template, and kept.

A conversion is written aside and renamed into place, with a manifest. Processes that start at once wait for the one
that converts. A kept copy that no longer agrees with its manifest is made anew.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from proxy_model import disk
from proxy_model.errors import BadCheckpoint, ModelUnavailable
from proxy_model.manifest import VerifiedFolder, describe, write_manifest

_MAX_HASHED_BYTES = 1 << 29
"""Longer files of a kept copy are held to their size alone: hashing 16 GB would cost every start half a minute."""

_PROBES = (
    "Hello, world!  Two  spaces,\ttabs\nand lines.",
    "Grüße, 你好, привет, 🙂 and 3.14159",
    "def f(x):\n    return x ** 2  # code",
    "<|im_start|>user\nspecial tokens<|im_end|>",
)


def converted(folder: Path, obtain: Callable[[Path], Path]) -> Path:
    """Return `folder` with the converted model in it, converting first unless an intact copy is there.

    `obtain` gets an empty folder for its own use and returns a GGUF file. Raises `ModelUnavailable`.
    """
    staging = folder.parent / f"{disk.STAGING_PREFIX}{folder.name}"
    if _is_intact(folder) and not staging.exists():
        return folder
    try:
        disk.make_folder(folder.parent)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            disk.remove(staging)
            if not _is_intact(folder):
                _replace(folder, staging, obtain)
    except OSError as error:
        raise ModelUnavailable(f"cannot keep the converted model in {folder}: {error}") from error
    return folder


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say on standard error what is going on, and how long it took."""
    start = time.monotonic()
    print(f"{what} ...", file=sys.stderr, flush=True)
    yield
    print(f"... done after {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def _is_intact(folder: Path) -> bool:
    try:
        with VerifiedFolder.opened(folder) as files:
            entries = dict(files.entries)
    except BadCheckpoint:
        return False
    return all(_is_as_described(folder / name, entry.size, entry.sha256) for name, entry in entries.items())


def _is_as_described(path: Path, size: int, sha256: str) -> bool:
    if path.stat().st_size != size:
        return False
    return size > _MAX_HASHED_BYTES or describe(path).sha256 == sha256


def _replace(folder: Path, staging: Path, obtain: Callable[[Path], Path]) -> None:
    """Convert aside in `staging`, then take the place of whatever is at `folder`. The caller holds the lock."""
    work, result, old = (staging / name for name in ("work", "result", "old"))
    try:
        work.mkdir(parents=True)
        result.mkdir()
        _convert(obtain(work), work, result)
        _seal(result)
        if folder.exists():
            folder.rename(old)
        result.rename(folder)
        disk.sync_folder(folder.parent)
    finally:
        disk.remove(staging)


def _convert(gguf: Path, work: Path, result: Path) -> None:
    """Fill `result` from `gguf`, which is read alone in a folder, or transformers would mix in its neighbours."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    alone = work / "alone"
    alone.mkdir()
    (alone / gguf.name).symlink_to(gguf.absolute())
    try:
        with announced(f"Converting {gguf.name} to bfloat16 safetensors, once"):
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=gguf.name)
            quantisation = GgufConfig(dequantize=True)
            model = AutoModelForCausalLM.from_pretrained(
                alone, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=quantisation
            )
            model.save_pretrained(result)
            tokenizer.save_pretrained(result)
    except Exception as error:  # a foreign parser on a foreign file: struct.error, KeyError, even a bare Exception
        raise ModelUnavailable(f"{gguf} cannot be converted: {error}") from error
    saved = AutoTokenizer.from_pretrained(result)
    _require_same_tokenizer(tokenizer, saved)


def _require_same_tokenizer(original: Any, saved: Any) -> None:
    """Raise `ModelUnavailable` unless both read, write and wrap text alike and end at the same tokens."""
    same: dict[str, Callable[[Any], Any]] = {
        "vocabulary": lambda tokenizer: tokenizer.get_vocab(),
        "special tokens": lambda tokenizer: (tokenizer.special_tokens_map, tokenizer.all_special_ids),
        "chat template": lambda tokenizer: tokenizer.chat_template,
        "token ids": lambda tokenizer: [tokenizer(text)["input_ids"] for text in _PROBES],
        "decoded text": lambda tokenizer: [tokenizer.decode(original(text)["input_ids"]) for text in _PROBES],
    }
    for what, view in same.items():
        if view(original) != view(saved):
            raise ModelUnavailable(f"the tokenizer of the GGUF file was not kept faithfully: its {what} changed")


def _seal(result: Path) -> None:
    """Let other users read the files, wait until the disk has them, and vouch for them."""
    for path in result.iterdir():
        path.chmod(0o644)
        disk.sync_file(path)
    write_manifest(result)
