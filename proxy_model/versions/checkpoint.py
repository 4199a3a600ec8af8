"""One version of a proxy on disk, and everything that is asked of it before it may decide about tokens.

    policy.safetensors   actor and critic, float32
    config.json          format, shape of the policy, SKAM settings, fingerprint of the LLM that it was trained on
    card.json            free JSON for people: data, settings, seeds, results
    README.md            the same, to be read
    manifest.json        size and sha256 of the four, written last

safetensors and JSON only: nothing that is read here is ever executed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from proxy_model import disk
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.config_json import config_from_json, config_to_json
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import BadCheckpoint, FingerprintMismatch
from proxy_model.manifest import VerifiedFolder, parse_object, write_manifest

POLICY, CONFIG, CARD, README = "policy.safetensors", "config.json", "card.json", "README.md"

FORMAT = 1
"""The format of `config.json` that this program writes and reads."""

NON_BINDING = frozenset({"llm_dtype"})
"""Keys of a fingerprint that may differ between training and serving; a difference is a warning."""

_MAX_TEXT_BYTES = 1 << 22
_MAX_HEADER_BYTES = 1 << 20
_MAX_POLICY_BYTES = 1 << 32
_MAX_WIDTH = 1 << 16

Fingerprint = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A proxy with what is needed to serve it and what is good to know about it."""

    policy: ProxyPolicy
    skam: SkamConfig
    fingerprint: dict[str, Any]
    """`FrozenLLM.fingerprint` of the LLM that the proxy was trained on: flat, of strings and numbers."""

    card: dict[str, Any] = field(default_factory=dict)
    """Free JSON: data, settings, seeds, results."""

    warnings: tuple[str, ...] = ()
    """What was odd when it was read, but no reason to refuse it. Not written."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Fill the new folder `folder` and wait until the disk has it; the manifest comes last.

    Raises `BadCheckpoint` for what `read_checkpoint` would refuse (`not_finite`, `format`), and `OSError`.
    """
    contents = _serialised(checkpoint)
    folder.mkdir()
    for name, data in contents.items():
        disk.write_file(folder / name, data)
    write_manifest(folder)


def read_checkpoint(folder: Path, llm_fingerprint: Fingerprint | None) -> Checkpoint:
    """Verify and load one version; without `llm_fingerprint` it is not asked which LLM it belongs to.

    Raises `BadCheckpoint` with reason missing, symlink, torn, tampered, format or not_finite, and
    `FingerprintMismatch` (reason fingerprint) that names the first differing field.
    """
    with VerifiedFolder.opened(folder) as files:
        if unknown := files.entries.keys() - {POLICY, CONFIG, CARD, README}:
            raise BadCheckpoint("format", f"{min(unknown)} does not belong to a checkpoint")
        policy_config, skam, fingerprint = _parse_config(files.read(CONFIG, _MAX_TEXT_BYTES))
        warnings = () if llm_fingerprint is None else compare_fingerprints(fingerprint, llm_fingerprint)
        card = parse_object(files.read(CARD, _MAX_TEXT_BYTES), CARD)
        if README in files.entries:
            files.read(README, _MAX_TEXT_BYTES)
        policy = _read_policy(files, policy_config)
    return Checkpoint(policy, skam, fingerprint, card, warnings)


def _serialised(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files by name, in the order in which they are written."""
    tensors = {
        name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, tensor in checkpoint.policy.state_dict().items()
    }
    _require_finite(tensors)
    config = {
        "format": FORMAT,
        "policy": config_to_json(checkpoint.policy.config),
        "skam": config_to_json(checkpoint.skam),
        "fingerprint": checkpoint.fingerprint,
    }
    _require_flat(checkpoint.fingerprint)
    card = _json(checkpoint.card, CARD)
    readme = f"# Proxy for a frozen LLM\n\n```json\n{_json(config, CONFIG)}```\n\n## Card\n\n```json\n{card}```\n"
    return {
        POLICY: safetensors.torch.save(tensors),
        CONFIG: _json(config, CONFIG).encode(),
        CARD: card.encode(),
        README: readme.encode(),
    }


def _json(content: dict[str, Any], name: str) -> str:
    try:
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BadCheckpoint("format", f"{name} cannot be written as JSON: {error}") from error


def _parse_config(data: bytes) -> tuple[PolicyConfig, SkamConfig, dict[str, Any]]:
    found = parse_object(data, CONFIG)
    if found.get("format") != FORMAT:
        raise BadCheckpoint("format", f"{CONFIG} is of format {found.get('format')!r}, only {FORMAT} can be read")
    if found.keys() != (expected := {"format", "policy", "skam", "fingerprint"}):
        raise BadCheckpoint("format", f"{CONFIG} lacks or adds {sorted(found.keys() ^ expected)}")
    policy = config_from_json(PolicyConfig, found["policy"], "policy")
    if policy.llm_hidden_size > _MAX_WIDTH:
        raise BadCheckpoint("format", f"policy.llm_hidden_size is {policy.llm_hidden_size}, at most {_MAX_WIDTH}")
    _require_flat(fingerprint := found["fingerprint"])
    if fingerprint.get("hidden_size", policy.llm_hidden_size) != policy.llm_hidden_size:
        raise BadCheckpoint("format", "policy.llm_hidden_size is not the fingerprint's hidden_size")
    return policy, config_from_json(SkamConfig, found["skam"], "skam"), fingerprint


def _require_flat(fingerprint: Any) -> None:
    if not isinstance(fingerprint, dict) or not all(type(item) in (str, int, float) for item in fingerprint.values()):
        raise BadCheckpoint("format", "the fingerprint is not an object of strings and numbers")


def compare_fingerprints(found: Fingerprint, expected: Fingerprint) -> tuple[str, ...]:
    """Every key on either side binds, except `NON_BINDING`; returns the warnings."""
    differing = [key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]
    for key in differing:
        if key not in NON_BINDING:
            raise FingerprintMismatch(key, expected.get(key), found.get(key))
    return tuple(f"{key} was {found.get(key)!r} in training, is {expected.get(key)!r} here" for key in differing)


def _read_policy(files: VerifiedFolder, config: PolicyConfig) -> ProxyPolicy:
    """Build the policy without memory, learn its shapes from that, and only then read as many bytes as they take."""
    with torch.device("meta"):
        policy = ProxyPolicy(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    num_bytes = 4 * sum(tensor.numel() for tensor in policy.state_dict().values())
    if num_bytes > _MAX_POLICY_BYTES:
        raise BadCheckpoint("format", f"the policy would take {num_bytes} bytes, at most {_MAX_POLICY_BYTES}")
    tensors = _tensors(files.read(POLICY, num_bytes + _MAX_HEADER_BYTES), shapes)
    policy.load_state_dict(tensors, assign=True)
    return policy


def _tensors(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    try:
        found = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise BadCheckpoint("format", f"{POLICY} is not safetensors: {error}") from error
    if found.keys() != shapes.keys():
        raise BadCheckpoint("format", f"{POLICY} lacks or adds {min(found.keys() ^ shapes.keys())}")
    for name, item in found.items():
        if item["dtype"] != "F32" or tuple(item["shape"]) != shapes[name]:
            what = f"{name} is {item['dtype']} {tuple(item['shape'])}, must be F32 {shapes[name]}"
            raise BadCheckpoint("format", f"{POLICY}: {what}")
    tensors = {name: _tensor(item["data"], shapes[name]) for name, item in found.items()}
    _require_finite(tensors)
    return tensors


def _tensor(data: bytes | bytearray, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(shape)


def _require_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise BadCheckpoint("not_finite", f"{name} holds NaN or infinity")
