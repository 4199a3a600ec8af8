"""What a killed run needs to go on as if it had not been: one safetensors file, replaced atomically.

Weights and Adam's moments are tensors; counters, running moments and the settings are JSON in the file's header. No
generator's state is in it, because every random number of iteration i is drawn from a seed of (run seed, purpose, i).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from proxy_model.decision.policy import ProxyPolicy
from proxy_model.disk import replace_file
from proxy_model.errors import BadCheckpoint, InvalidParameter
from trainer.advantages import RunningMoments
from trainer.kinds import KindMoments
from trainer.saved_settings import completed

STATE_FILE = "state.safetensors"
BEST_FILE = "best.safetensors"
"""The weights that the held-out judge has liked best so far."""

FREE_TO_CHANGE = frozenset(
    {"output", "registry", "alias", "start", "servers", "gates", "tensorboard"}
    | {"save_every", "publish_every", "keep_versions"}
)
"""Settings that a resumed run may change, since its weights do not depend on them, or not any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come."""

    iteration: int = 0
    """Iterations done, which also says where in the prompt order the next one starts."""

    prompts_seen: int = 0
    moments: KindMoments = field(default_factory=KindMoments)
    """Of all raw scores, each kind of prompts by itself."""

    return_moments: RunningMoments = field(default_factory=RunningMoments)
    """Of all answers' returns: the normalised score less penalties and baseline; offline of the whole folder."""

    best_judge: float | None = None
    """The held-out judge's best mean score so far; None before its first look."""

    best_iteration: int = 0
    num_looks_since_best: int = 0


def save_state(
    folder: Path,
    policy: ProxyPolicy,
    optimizer: torch.optim.Adam,
    progress: Progress,
    settings: Mapping[str, Any],
) -> None:
    """Write aside, fsync, rename: a reader finds the old state or the new one, whenever the process dies."""
    header = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(dict(settings), sort_keys=True)}
    _replace(folder / STATE_FILE, {**_weights(policy), **_moments(policy, optimizer)}, header)


def save_best(folder: Path, policy: ProxyPolicy) -> None:
    """Keep the weights as those that the held-out judge likes best, as safely as a state."""
    _replace(folder / BEST_FILE, _weights(policy), {})


def load_best(folder: Path, policy: ProxyPolicy) -> None:
    """Put what `save_best` kept into `policy`. Raises `BadCheckpoint`."""
    tensors, _ = _read(folder / BEST_FILE)
    _restore_weights(policy, tensors, folder / BEST_FILE)


def load_state(folder: Path, policy: ProxyPolicy, optimizer: torch.optim.Adam, settings: Mapping[str, Any]) -> Progress:
    """Put the saved run into `policy` and `optimizer`.

    Raises `BadCheckpoint` for a file that is not a state, `InvalidParameter` naming a setting that has changed, or the
    output folder for a run that is too old to be resumed.
    """
    tensors, header = _read_state(folder)
    _refuse_changes(completed(json.loads(header["settings"])), settings)
    _restore_weights(policy, tensors, folder / STATE_FILE)
    _restore_moments(policy, optimizer, tensors)
    values = json.loads(header["progress"])
    moments = KindMoments.from_json(values["moments"])
    return_moments = RunningMoments(**values["return_moments"])
    return Progress(**{**values, "moments": moments, "return_moments": return_moments})


def load_weights(folder: Path, policy: ProxyPolicy) -> None:
    """Put the weights of the run in `folder` into `policy`, and nothing else of it. Raises `BadCheckpoint`."""
    tensors, _ = _read_state(folder)
    _restore_weights(policy, tensors, folder / STATE_FILE)


def _replace(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    replace_file(path, save(tensors, header))


def _read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, header = _read(folder / STATE_FILE)
    if not header.keys() >= {"progress", "settings"}:
        raise BadCheckpoint("format", f"{folder / STATE_FILE} is not the state of a training run")
    return tensors, header


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise BadCheckpoint("missing", f"{path} is not there, so there is nothing to resume") from error
    except SafetensorError as error:
        raise BadCheckpoint("format", f"{path}: {error}") from error
    return tensors, header


def _restore_weights(policy: ProxyPolicy, tensors: Mapping[str, Tensor], path: Path) -> None:
    weights = {name: each for name, each in tensors.items() if name.startswith("policy.")}
    try:
        policy.load_state_dict({name.removeprefix("policy."): each for name, each in weights.items()})
    except RuntimeError as error:
        raise BadCheckpoint("format", f"{path}: {error}") from error


def _weights(policy: ProxyPolicy) -> dict[str, Tensor]:
    return {f"policy.{name}": each.detach().cpu().contiguous() for name, each in policy.state_dict().items()}


def _moments(policy: ProxyPolicy, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """`optimizer.<moment>.<parameter>`; a parameter that has had no step yet has none."""
    return {
        f"optimizer.{kind}.{name}": torch.as_tensor(moment).detach().cpu().clone()
        for name, parameter in policy.named_parameters()
        for kind, moment in optimizer.state.get(parameter, {}).items()
    }


def _restore_moments(policy: ProxyPolicy, optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in policy.named_parameters():
        saved = {
            kind: tensors[f"optimizer.{kind}.{name}"]
            for kind in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.{kind}.{name}" in tensors
        }
        if saved:
            optimizer.state[parameter] = {
                kind: each if kind == "step" else each.to(parameter.device) for kind, each in saved.items()
            }


def _refuse_changes(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for name in sorted(saved.keys() | settings.keys()):
        if name not in FREE_TO_CHANGE and saved.get(name) != settings.get(name):
            raise InvalidParameter(name, settings.get(name), f"{saved.get(name)!r}, as in the run that is resumed")
