"""What a folder of answers holds, in numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from proxy_model.disk import read_file
from trainer.offline.folder import SUMMARY, DataWriter, learnable_groups, read_shards

_MAX_BYTES = 1 << 20


def finish(writer: DataWriter) -> Mapping[str, Any]:
    """Vouch for a folder whose shards are all there, unless that is done; returns its summary."""
    if not writer.is_complete:
        writer.finish(_summary(writer.folder, writer.group_size))
    found: Mapping[str, Any] = json.loads(read_file(writer.folder / SUMMARY, _MAX_BYTES))
    return found


def _summary(folder: Path, group_size: int) -> dict[str, Any]:
    lengths, inadmissible, learnable, scores = [], 0, 0, []
    for shard in read_shards(folder):
        lengths += [each.num_positions for each in shard.trajectories]
        inadmissible += sum(int((each.ranks < 0).sum()) for each in shard.trajectories)
        learnable += len(learnable_groups(shard.trajectories, group_size))
        scores.append(shard.scores)
    all_scores = torch.cat(scores)
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "answers": len(lengths),
        "positions": sum(lengths),
        "learnable_prompts": learnable,
        "inadmissible_share": inadmissible / sum(lengths),
        "score_mean": float(all_scores.mean()),
        "score_sd": float(all_scores.std(correction=0)),
        "megabytes_per_1000_answers": num_bytes / len(lengths) / 1000,
    }
