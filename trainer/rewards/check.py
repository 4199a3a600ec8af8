"""`python -m trainer.rewards.check FOLDER PAIRS...`: how a stored reward model orders held-out preference pairs."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from proxy_model.llm.embedded import DEFAULT_LLM
from proxy_model.llm.frozen_llm import load_llm
from trainer.preferences import PreferencePair, load_preferences
from trainer.rewards.load import load_reward
from trainer.rewards.model import RewardModel
from trainer.rewards.pairs import conversations_of
from trainer.rewards.progress import reading_progress
from trainer.rewards.report import Accuracy

_PAIRS_PER_PASS = 16


def check(model: RewardModel, pairs: Sequence[PreferencePair], console: Console) -> list[Accuracy]:
    """The model's accuracy on `pairs`, and that of preferring the longer answer."""
    margins, longer = [], []
    with reading_progress(console) as progress:
        for start in progress.track(range(0, len(pairs), _PAIRS_PER_PASS), description="pairs"):
            some = pairs[start : start + _PAIRS_PER_PASS]
            scores = model.score(conversations_of(some))
            margins.append(scores[0::2] - scores[1::2])
            longer += [float(len(pair.chosen) - len(pair.rejected)) for pair in some]
    return [Accuracy.of("this model", torch.cat(margins)), Accuracy.of("longer is better", torch.tensor(longer))]


def main(arguments: Sequence[str]) -> int:
    """Print one line per scorer. Raises `DataError`, `BadCheckpoint`."""
    if len(arguments) < 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    console = Console()
    pairs = load_preferences([Path(path) for path in arguments[1:]])
    for row in check(load_reward(Path(arguments[0]), load_llm(DEFAULT_LLM)), pairs, console):
        bounds = f"[{row.interval.low:.1%}, {row.interval.high:.1%}]"
        console.print(f"{row.name}: {row.interval.estimate:.1%} {bounds} of {row.num_pairs} pairs", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
