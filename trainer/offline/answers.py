"""Answers that are to be imitated as trajectories, for `mle`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.json_lines import Messages, parse_messages, parse_text, read_json_lines, require_keys, require_rows
from trainer.offline.replayed import ReplayConfig, Watcher, fitting_group, unwatched, write_replay

GOOD = 1.0
"""Score of every answer: all are worth the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """A conversation and how it should go on."""

    prompt: Messages
    answer: str


def load_answers(path: Path) -> list[GivenAnswer]:
    """Every row of a `.jsonl` or `.jsonl.gz` file of `{"prompt", "answer"}`. Raises `DataError`."""
    answers = [_given(path, number, row) for number, row in read_json_lines(path)]
    require_rows(path, answers)
    return answers


def replay_answers(
    config: ReplayConfig, llm: FrozenLLM, answers: Sequence[GivenAnswer], before_shard: Watcher = unwatched
) -> Mapping[str, Any]:
    """Fill `config.output`, or finish what a killed replay left there; returns the folder's summary.

    Raises `InvalidParameter` for a folder of other settings, `OutputTaken`, and `DataError` where no prompt fits.
    """
    groups = [fitting_group(config, llm, each.prompt, (each.answer,)) for each in answers]
    fitting = [group for group in groups if group is not None]
    return write_replay(config, llm, "answers", fitting, (GOOD,), before_shard)


def _given(path: Path, number: int, row: dict[str, object]) -> GivenAnswer:
    require_keys(path, number, row, {"prompt", "answer"}, set())
    return GivenAnswer(
        prompt=parse_messages(path, number, row["prompt"]), answer=parse_text(path, number, row, "answer")
    )
