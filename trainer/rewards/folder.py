"""A reward model on disk, verified before it is used.

head.safetensors   standardisation and weights, float32
config.json        kind, what is read, the fingerprint that it binds to, and the card: data, settings, accuracy
vocabulary.json    words of a judge, in the order of their weights
manifest.json      size and sha256 of the others, written last
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from proxy_model import disk
from proxy_model.errors import BadCheckpoint, InvalidParameter
from proxy_model.manifest import VerifiedFolder, parse_object, write_manifest

HEAD, CONFIG, VOCABULARY = "head.safetensors", "config.json", "vocabulary.json"

_FORMAT = 1
_MAX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReward:
    """The contents of a reward model's folder, checked for integrity but not for meaning."""

    kind: str
    reads: dict[str, Any]
    """Settings of the features."""

    fingerprint: dict[str, Any]
    tensors: dict[str, Tensor]
    vocabulary: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)


def write_reward(folder: Path, stored: StoredReward) -> None:
    """Fill the new folder `folder`. Raises `InvalidParameter` if it exists, `BadCheckpoint`, `OSError`."""
    if folder.exists():
        raise InvalidParameter("output", str(folder), "a folder that does not exist yet")
    _require_finite(stored.tensors)
    disk.make_folder(folder.parent)
    staging = disk.staging_path(folder.parent)
    try:
        staging.mkdir()
        for name, data in _serialised(stored).items():
            disk.write_file(staging / name, data)
        write_manifest(staging)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    disk.sync_folder(folder.parent)


def read_reward(folder: Path) -> StoredReward:
    """Verify names, sizes, sha256 and numbers. Raises `BadCheckpoint`."""
    with VerifiedFolder.opened(folder) as files:
        config = parse_object(files.read(CONFIG, _MAX_BYTES), CONFIG)
        if config.get("format") != _FORMAT or config.keys() != {"format", "kind", "reads", "fingerprint", "card"}:
            raise BadCheckpoint("format", f"{CONFIG} is not of format {_FORMAT}")
        tensors = _read_tensors(files.read(HEAD, _MAX_BYTES))
        has_words = VOCABULARY in files.entries
        vocabulary = parse_object(files.read(VOCABULARY, _MAX_BYTES), VOCABULARY) if has_words else {}
    del config["format"]
    if not all(isinstance(config[key], dict) for key in ("reads", "fingerprint", "card")):
        raise BadCheckpoint("format", f"{CONFIG} holds something else than objects")
    return StoredReward(tensors=tensors, vocabulary=vocabulary, **config)


def _serialised(stored: StoredReward) -> dict[str, bytes]:
    config = {
        "format": _FORMAT,
        "kind": stored.kind,
        "reads": stored.reads,
        "fingerprint": stored.fingerprint,
        "card": stored.card,
    }
    tensors = {name: tensor.detach().float().contiguous().clone() for name, tensor in stored.tensors.items()}
    files = {HEAD: safetensors.torch.save(tensors), CONFIG: json.dumps(config, indent=2).encode() + b"\n"}
    if stored.vocabulary:
        files[VOCABULARY] = json.dumps(stored.vocabulary, separators=(",", ":")).encode() + b"\n"
    return files


def _read_tensors(data: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadCheckpoint("format", f"{HEAD} is not a safetensors file: {error}") from error
    _require_finite(tensors)
    return tensors


def _require_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(tensor.float().isfinite().all()):
            raise BadCheckpoint("not_finite", f"{name} of the reward model holds NaN or infinity")
