"""The policy that an offline run started from: what its answers' likelihood is compared with."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from proxy_model.decision.features import DecisionFeatures
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.disk import replace_file
from proxy_model.errors import BadCheckpoint
from trainer.batch import PpoBatch

REFERENCE_FILE = "reference.safetensors"


def reference_of(folder: Path, policy: ProxyPolicy, *, is_resumed: bool) -> ProxyPolicy:
    """A frozen copy of the new run's `policy`, kept in `folder`, or the one that the resumed run keeps there.

    Raises `BadCheckpoint` for a file that is not of this shape.
    """
    path = folder / REFERENCE_FILE
    reference = deepcopy(policy).requires_grad_(False)
    if not is_resumed:
        replace_file(path, save({name: each.cpu().contiguous() for name, each in reference.state_dict().items()}))
        return reference
    try:
        reference.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BadCheckpoint("format", f"{path} is not the policy that the run began with: {error}") from error
    return reference


@torch.no_grad()
def under_reference(batch: PpoBatch, reference: ProxyPolicy) -> PpoBatch:
    """`batch` as if `reference` had decided, whoever did."""
    target = batch.to_positions(batch.target)[batch.position]
    features = DecisionFeatures(batch.hidden[batch.position], batch.candidate, batch.scalars, target)
    logits = reference.accept_logits(features)
    return replace(batch, old_logits=torch.where(batch.is_free, logits, 0.0))
