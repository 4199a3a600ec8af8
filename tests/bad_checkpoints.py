"""Published folders as accidents and attackers leave them, each with the reason for which it must be refused."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.manifest import MANIFEST, write_manifest

POLICY, CONFIG = "policy.safetensors", "config.json"

Corruption = Callable[[Path], None]


def small_policy(seed: int = 0) -> ProxyPolicy:
    """A proxy for an LLM of width 6."""
    return ProxyPolicy(PolicyConfig(llm_hidden_size=6, hidden_size=5), generator=torch.Generator().manual_seed(seed))


SMALL_SKAM = SkamConfig(p_t=0.02, top_p=0.8)
SMALL_FINGERPRINT: dict[str, str | int | float] = {
    "llm_weights": "ab12", "tokenizer": "cd34", "tap": "last", "hidden_size": 6, "llm_dtype": "float32",
}  # fmt: skip


def truncated(folder: Path) -> None:
    """A file that ends early."""
    path = folder / POLICY
    path.write_bytes(path.read_bytes()[:-7])


def lengthened(folder: Path) -> None:
    """A file with something behind its end."""
    with (folder / POLICY).open("ab") as file:
        file.write(b"x")


def flipped_byte(folder: Path) -> None:
    """One byte changed, the length kept."""
    flip(folder / POLICY, -3)


def pickled(folder: Path) -> None:
    """A pickle under the name of the weights, with a manifest that vouches for it."""
    (folder / POLICY).write_bytes(pickle.dumps({"actor.output.bias": [0.0]}))
    reseal(folder)


def missing_file(folder: Path) -> None:
    """No weights."""
    (folder / POLICY).unlink()


def no_manifest(folder: Path) -> None:
    """What a writer leaves that was killed before the end, if it does not write aside."""
    (folder / MANIFEST).unlink()


def torn_manifest(folder: Path) -> None:
    """Half a manifest."""
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes()[:100])


def edited_manifest(folder: Path) -> None:
    """A manifest that still says the same, in other words than ours."""
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"\n", b" "))


def symlink_out(folder: Path) -> None:
    """Weights that are a link to an equal file outside of the folder."""
    outside = folder.parent / f"outside-{folder.name}"
    (folder / POLICY).rename(outside)
    (folder / POLICY).symlink_to(outside)


def pipe(folder: Path) -> None:
    """Weights that never come, if one waits for them."""
    (folder / POLICY).unlink()
    os.mkfifo(folder / POLICY)


def unlisted_file(folder: Path) -> None:
    """A file that the manifest does not know."""
    (folder / "extra.py").write_text("print('never run')")


def foreign_file(folder: Path) -> None:
    """A file that the manifest knows and a checkpoint does not have."""
    unlisted_file(folder)
    reseal(folder)


def subfolder(folder: Path) -> None:
    """A folder in the folder."""
    (folder / "nested").mkdir()


def not_a_number(folder: Path) -> None:
    """One weight is NaN."""
    change_tensors(folder, lambda tensors: tensors["actor.output.weight"].view(-1)[2].fill_(float("nan")))


def infinite(folder: Path) -> None:
    """One weight is infinite, in the critic."""
    change_tensors(folder, lambda tensors: tensors["critic.output.bias"].fill_(float("-inf")))


def wrong_shape(folder: Path) -> None:
    """The right number of weights in the wrong shape."""
    change_tensors(folder, lambda tensors: tensors.update({"actor.candidate.weight": torch.zeros(6, 5)}))


def wrong_dtype(folder: Path) -> None:
    """Half precision."""
    change_tensors(folder, lambda tensors: tensors.update({"critic.output.bias": torch.zeros(1, dtype=torch.float16)}))


def missing_tensor(folder: Path) -> None:
    """A layer less."""
    change_tensors(folder, lambda tensors: tensors.pop("actor.output.bias"))


def extra_tensor(folder: Path) -> None:
    """A layer more."""
    change_tensors(folder, lambda tensors: tensors.update({"actor.other": torch.zeros(1)}))


def unknown_key(folder: Path) -> None:
    """A SKAM setting that nobody knows."""
    change_config(folder, lambda config: config["skam"].update(top_k=50))


def lacking_key(folder: Path) -> None:
    """A SKAM setting that would have to be guessed."""
    change_config(folder, lambda config: config["skam"].pop("p_t"))


def text_for_number(folder: Path) -> None:
    """A setting of the wrong type."""
    change_config(folder, lambda config: config["skam"].update(p_t="0.1"))


def out_of_range(folder: Path) -> None:
    """A setting that means nothing."""
    change_config(folder, lambda config: config["skam"].update(top_p=1.5))


def next_format(folder: Path) -> None:
    """A format that this program does not know."""
    change_config(folder, lambda config: config.update(format=2))


def absurd_width(folder: Path) -> None:
    """A policy that would take 10 TB."""
    change_config(folder, lambda config: config["policy"].update(llm_hidden_size=10**12))


def sparse_giant(folder: Path) -> None:
    """Weights of 1 TB that take no room on disk, vouched for by the manifest."""
    os.truncate(folder / POLICY, 1 << 40)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][POLICY]["size"] = 1 << 40
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def deep_json(folder: Path) -> None:
    """JSON that is nested deeper than the parser's stack."""
    (folder / "card.json").write_bytes(b'{"a":' + b"[" * 200_000)
    reseal(folder)


def nan_in_json(folder: Path) -> None:
    """What Python writes for NaN, and JSON does not have."""
    (folder / "card.json").write_text('{"reward": NaN}')
    reseal(folder)


def foreign_llm(folder: Path) -> None:
    """Trained on another LLM of the same width."""
    change_config(folder, lambda config: config["fingerprint"].update(llm_weights="ffff"))


CORRUPTIONS: dict[Corruption, str] = {
    truncated: "torn", lengthened: "tampered", flipped_byte: "tampered", pickled: "format", missing_file: "missing",
    no_manifest: "missing", torn_manifest: "torn", edited_manifest: "tampered",
    symlink_out: "symlink", pipe: "format", unlisted_file: "tampered",
    foreign_file: "format", subfolder: "format", not_a_number: "not_finite", infinite: "not_finite",
    wrong_shape: "format", wrong_dtype: "format", missing_tensor: "format", extra_tensor: "format",
    unknown_key: "format", lacking_key: "format", text_for_number: "format", out_of_range: "format",
    next_format: "format", absurd_width: "format", sparse_giant: "format",
    deep_json: "format", nan_in_json: "format", foreign_llm: "fingerprint",
}  # fmt: skip


def flip(path: Path, index: int) -> None:
    """Change one bit of the byte at `index`."""
    data = bytearray(path.read_bytes())
    data[index] ^= 1
    path.write_bytes(data)


def reseal(folder: Path) -> None:
    """Write a manifest that vouches for the folder as it is now."""
    (folder / MANIFEST).unlink()
    write_manifest(folder)


def change_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Edit `config.json` and vouch for it."""
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))
    reseal(folder)


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Edit the weights and vouch for them."""
    tensors = safetensors.torch.load_file(folder / POLICY)
    change(tensors)
    (folder / POLICY).write_bytes(safetensors.torch.save(tensors))
    reseal(folder)
