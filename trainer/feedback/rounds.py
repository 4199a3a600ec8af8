"""The folder of a round that learns from feedback.

<home>/feedback/<proxy>/<round>/round.json   ids of its feedback; there as soon as the round is
                                reward/      the updated reward model
                                run/         a run as `trainer.loop` keeps it
                                done.json    when it was complete; written last
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from proxy_model import disk
from proxy_model.errors import BadCheckpoint, UnknownProxy
from proxy_model.versions.registry import ProxyRegistry
from trainer.rounds import last_round, mark_done

ROUND_FILE = "round.json"


@dataclass(frozen=True, slots=True)
class Round:
    """One round on disk."""

    folder: Path

    @property
    def reward(self) -> Path:
        return self.folder / "reward"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def feedback(self) -> frozenset[str]:
        """The ids that it learns from."""
        return frozenset(json.loads((self.folder / ROUND_FILE).read_text())["feedback"])

    def finish(self, at: float) -> None:
        """It is complete."""
        mark_done(self.folder, at)


def begin_round(root: Path, feedback: Iterable[str]) -> Round:
    """The next round under `root`, whole or not at all."""
    disk.make_folder(root)
    staging = disk.staging_path(root)
    staging.mkdir()
    disk.write_file(staging / ROUND_FILE, json.dumps({"feedback": sorted(feedback)}).encode() + b"\n")
    disk.sync_folder(staging)
    folder = root / str(last_round(root) + 1)
    staging.rename(folder)
    disk.sync_folder(root)
    return Round(folder)


def known_feedback(root: Path) -> frozenset[str]:
    """What all rounds so far have learned from."""
    rounds = (Round(root / str(number)) for number in range(1, last_round(root) + 1))
    return frozenset().union(*(each.feedback for each in rounds if each.folder.is_dir()))


def reward_in_use(root: Path, registry: ProxyRegistry, proxy: str, first: Path) -> Path:
    """The reward model that the stable version learned from, if a round made it; `first` otherwise.

    So a round whose version did not pass its gates, or was rolled back, leaves no trace in the next one.
    """
    try:
        card = registry.verify(registry.resolve(proxy)).card
    except (UnknownProxy, BadCheckpoint):
        return first
    settings = card.get("settings")
    output = Path(str(settings.get("output"))) if isinstance(settings, dict) else Path()
    made = Round(output.parent)
    return made.reward if output == made.run and made.folder.parent == root and made.reward.is_dir() else first
