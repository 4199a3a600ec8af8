"""A folder of scored answers that offline runs learn from.

data.json                  kind, settings, the LLM's fingerprint, SKAM, features, answers a prompt; written first
shard-00000.safetensors    see `shard`; each is renamed into place when it is whole, so a killed writer goes on after it
summary.json               counts and means, for people
manifest.json              size and sha256 of the others, written last: a folder without one is unfinished
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from proxy_model import disk
from proxy_model.decision.config import FeatureMode, SkamConfig
from proxy_model.decision.config_json import config_from_json
from proxy_model.decision.trajectory import Trajectory
from proxy_model.errors import BadCheckpoint, InvalidParameter
from proxy_model.manifest import MANIFEST, VerifiedFolder, parse_object, write_manifest
from proxy_model.versions.checkpoint import Fingerprint, compare_fingerprints
from trainer.offline.shard import Shard, parse, serialise

DATA, SUMMARY = "data.json", "summary.json"
MAX_SHARDS = 400
"""What a manifest has room for."""

Kind = Literal["rollouts", "pairs", "answers"]

_FORMAT = 1
_MAX_TEXT_BYTES = 1 << 22
_MAX_SHARD_BYTES = 1 << 33


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDescription:
    """What the answers of a folder have in common."""

    kind: Kind
    """`rollouts`: sampled answers with a reward's scores. `pairs`: replayed, the chosen one before the rejected one.
    `answers`: replayed, all to be imitated."""

    settings: dict[str, Any]
    """Everything that the answers depend on."""

    fingerprint: dict[str, Any]
    skam: SkamConfig
    features: FeatureMode
    group_size: int
    """Answers to one prompt, which stand next to each other."""


@dataclass(frozen=True, slots=True)
class ScoredAnswers:
    """The contents of a finished folder, in memory."""

    description: DataDescription
    trajectories: list[Trajectory]
    scores: Tensor
    """(B,)"""

    kinds: Tensor
    """(B,)"""


class DataWriter:
    """A folder in the making, or a finished one, which takes nothing more. One process at a time (`lock`)."""

    def __init__(self, folder: Path, description: DataDescription) -> None:
        """Begin `folder`, or go on where a killed writer left it.

        Raises `InvalidParameter` for a folder that holds something else or was begun with other settings.
        """
        self.folder = folder
        self.group_size = description.group_size
        self.is_complete = (folder / MANIFEST).exists()
        wanted = _described(description)
        if (folder / DATA).is_file():
            _require_same(wanted, parse_object(disk.read_file(folder / DATA, _MAX_TEXT_BYTES), DATA))
        elif folder.exists() and _has_strange_files(folder):
            raise InvalidParameter("output", str(folder), "a folder that does not exist yet, or one of these settings")
        else:
            disk.make_folder(folder)
            self._write(DATA, _json(wanted))
        for leftover in folder.glob(f"{disk.STAGING_PREFIX}*"):
            disk.remove(leftover)
        self.num_shards = _count_shards(folder)

    def add(self, trajectories: Sequence[Trajectory], scores: Tensor, kinds: Tensor | None = None) -> None:
        """Write the next shard; once this returns it survives a kill."""
        assert not self.is_complete
        self._write(_shard_name(self.num_shards), serialise(trajectories, scores, kinds))
        self.num_shards += 1

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Vouch for what is there."""
        disk.remove(self.folder / SUMMARY)
        self._write(SUMMARY, _json(summary))
        write_manifest(self.folder)
        self.is_complete = True

    def _write(self, name: str, data: bytes) -> None:
        aside = disk.staging_path(self.folder)
        disk.write_file(aside, data)
        aside.replace(self.folder / name)
        disk.sync_folder(self.folder)


def read_data(folder: Path, llm_fingerprint: Fingerprint) -> ScoredAnswers:
    """Verify and load a finished folder.

    Raises `BadCheckpoint` (missing, torn, tampered, format, not_finite) and `FingerprintMismatch` for another LLM.
    """
    with VerifiedFolder.opened(folder) as files:
        description = _parse_description(files.read(DATA, _MAX_TEXT_BYTES))
        compare_fingerprints(description.fingerprint, llm_fingerprint)
        names = sorted(files.entries.keys() - {DATA, SUMMARY})
        if not names or names != [_shard_name(number) for number in range(len(names))]:
            raise BadCheckpoint("format", f"{folder} holds no shards, or something else beside them")
        parts = [parse(files.read(name, _MAX_SHARD_BYTES), name) for name in names]
    trajectories = [each for part in parts for each in part.trajectories]
    if len(trajectories) % description.group_size:
        raise BadCheckpoint("format", f"{len(trajectories)} answers are not groups of {description.group_size}")
    _require_width(trajectories, description, llm_fingerprint)
    scores, kinds = torch.cat([part.scores for part in parts]), torch.cat([part.kinds for part in parts])
    return ScoredAnswers(description, trajectories, scores, kinds)


def read_shards(folder: Path) -> Iterator[Shard]:
    """The shards of a folder that may be unfinished, one by one. Raises `BadCheckpoint`."""
    for number in range(_count_shards(folder)):
        name = _shard_name(number)
        yield parse(disk.read_file(folder / name, _MAX_SHARD_BYTES), name)


def learnable_groups(trajectories: Sequence[Trajectory], group_size: int) -> list[int]:
    """Where the groups begin all of whose answers have a position with an admissible token: the others are dropped."""
    has_any = [bool((each.ranks >= 0).any()) for each in trajectories]
    return [first for first in range(0, len(has_any), group_size) if all(has_any[first : first + group_size])]


def _shard_name(number: int) -> str:
    return f"shard-{number:05}.safetensors"


def _count_shards(folder: Path) -> int:
    number = 0
    while (folder / _shard_name(number)).is_file():
        number += 1
    return number


def _has_strange_files(folder: Path) -> bool:
    return not folder.is_dir() or any(not each.name.startswith(disk.STAGING_PREFIX) for each in folder.iterdir())


def _described(description: DataDescription) -> dict[str, Any]:
    return {"format": _FORMAT, **asdict(description)}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"


def _require_same(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Another writer's folder is left alone; the first setting that differs is named."""
    plain = json.loads(_json(wanted))
    mine, theirs = plain.pop("settings"), dict(found).pop("settings", {})
    theirs = theirs if isinstance(theirs, dict) else {}
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            raise InvalidParameter(key, mine.get(key), f"{theirs.get(key)!r}, as in the folder that was begun")
    for key, value in plain.items():
        if found.get(key) != value:
            raise InvalidParameter("output", key, "another folder: this one was begun with another " + key)


def _parse_description(data: bytes) -> DataDescription:
    found = parse_object(data, DATA)
    expected = {"format", *DataDescription.__slots__}
    if found.get("format") != _FORMAT or found.keys() != expected:
        raise BadCheckpoint("format", f"{DATA} is not of format {_FORMAT}")
    is_known = found["kind"] in get_args(Kind) and found["features"] in get_args(FeatureMode)
    is_plain = isinstance(found["settings"], dict) and isinstance(found["fingerprint"], dict)
    if not is_known or not is_plain or type(found["group_size"]) is not int or found["group_size"] < 1:
        raise BadCheckpoint("format", f"{DATA} does not say what the answers are")
    values = {name: found[name] for name in DataDescription.__slots__}
    return DataDescription(**{**values, "skam": config_from_json(SkamConfig, found["skam"], "skam")})


def _require_width(trajectories: Sequence[Trajectory], description: DataDescription, llm: Fingerprint) -> None:
    """Every shard is for this LLM's states, and the candidates' states are there exactly where they are read."""
    reads_candidates = description.features != "prefix"
    for each in trajectories:
        if each.hidden.shape[-1] != llm.get("hidden_size") or (each.candidate_hidden is not None) != reads_candidates:
            raise BadCheckpoint("format", "the states are not those that the folder describes")
