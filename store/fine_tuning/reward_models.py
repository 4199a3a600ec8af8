"""Reward models by name, of this installation and those that ship with the program; an own one hides a shipped one.

<home>/rewards/<name>   `<name>`: trains and judges
<home>/judges/<name>    `judges/<name>`: only judges, so that a judge may share nothing with what trained
"""

from collections.abc import Iterator
from pathlib import Path

from proxy_model.errors import InvalidParameter
from proxy_model.manifest import MANIFEST
from proxy_model.paths import judges_root, rewards_root
from store.fine_tuning.graders import Grader, MultiGrader, RewardModelGrader

_DEMO = Path(__file__).parents[2] / "demo"


def reward_folders(home: Path) -> dict[str, Path]:
    """Every complete one that may train."""
    return _folders(_DEMO / "rewards", rewards_root(home))


def judge_folders(home: Path) -> dict[str, Path]:
    """Every complete one that may judge."""
    judges = _folders(_DEMO / "judges", judges_root(home))
    return reward_folders(home) | {f"judges/{name}": folder for name, folder in judges.items()}


def reward_names(grader: Grader | None) -> list[str]:
    """The reward models that a grader asks, sorted."""
    return sorted({each.model for _, each in _reward_graders(grader, "")})


def require_reward_models(grader: Grader, home: Path, parameter: str) -> None:
    """Raises `InvalidParameter` for a reward model that is not there, naming it below `parameter`."""
    names = sorted(reward_folders(home))
    for place, each in _reward_graders(grader, parameter):
        if each.model not in names:
            raise InvalidParameter(f"{place}.model", each.model, f"one of {names}")


def _folders(*roots: Path) -> dict[str, Path]:
    folders = [folder for root in roots if root.is_dir() for folder in root.iterdir() if (folder / MANIFEST).is_file()]
    return {folder.name: folder for folder in folders}


def _reward_graders(grader: Grader | None, parameter: str) -> Iterator[tuple[str, RewardModelGrader]]:
    if isinstance(grader, RewardModelGrader):
        yield parameter, grader
    if isinstance(grader, MultiGrader):
        for name, each in grader.graders.items():
            yield from _reward_graders(each, f"{parameter}.graders.{name}")
