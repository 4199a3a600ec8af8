"""Reward models by name: those of this installation in `<home>/rewards`, and those that ship with the program."""

from collections.abc import Iterator
from pathlib import Path

from proxy_model.errors import InvalidParameter
from proxy_model.manifest import MANIFEST
from proxy_model.paths import rewards_root
from store.fine_tuning.graders import Grader, MultiGrader, RewardModelGrader

SHIPPED = Path(__file__).parents[2] / "demo" / "rewards"


def reward_folders(home: Path) -> dict[str, Path]:
    """Every complete one; an own one hides a shipped one of its name."""
    roots = (SHIPPED, rewards_root(home))
    folders = [folder for root in roots if root.is_dir() for folder in root.iterdir() if (folder / MANIFEST).is_file()]
    return {folder.name: folder for folder in folders}


def require_reward_models(grader: Grader, home: Path, parameter: str) -> None:
    """Raises `InvalidParameter` for a reward model that is not there, naming it below `parameter`."""
    names = sorted(reward_folders(home))
    for place, each in _reward_graders(grader, parameter):
        if each.model not in names:
            raise InvalidParameter(f"{place}.model", each.model, f"one of {names}")


def _reward_graders(grader: Grader, parameter: str) -> Iterator[tuple[str, RewardModelGrader]]:
    if isinstance(grader, RewardModelGrader):
        yield parameter, grader
    if isinstance(grader, MultiGrader):
        for name, each in grader.graders.items():
            yield from _reward_graders(each, f"{parameter}.graders.{name}")
