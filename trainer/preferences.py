"""Preference pairs, and how they are dealt to the reward that trains and to the judge that checks it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from proxy_model.errors import DataError
from trainer.json_lines import Messages, parse_messages, parse_text, read_json_lines, require_keys, require_rows

Half = Literal["reward", "judge", "all"]

REWARD_SHARE = 0.7
"""Share of the prompts whose pairs train the training reward; the judge has the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Two answers to one prompt, one of which was preferred."""

    prompt: Messages
    chosen: str
    rejected: str
    source: str = ""

    @property
    def half(self) -> Literal["reward", "judge"]:
        """Which model may learn from it, by a hash of the first turn, so that dialogues stay together."""
        first = " ".join(self.prompt[0]["content"].lower().split())
        bucket = int.from_bytes(hashlib.sha256(first.encode()).digest()[:4], "big") % 10
        return "reward" if bucket < REWARD_SHARE * 10 else "judge"


def load_preferences(paths: Sequence[Path]) -> list[PreferencePair]:
    """Every row of some `.jsonl` or `.jsonl.gz` files of `{"prompt", "chosen", "rejected", "source", "margin"}`.

    All files are checked before anything is handed out. Raises `DataError` with file, line and reason.
    """
    return [pair for path in paths for pair in _load_file(path)]


def deal(pairs: Sequence[PreferencePair], half: Half) -> list[PreferencePair]:
    """The pairs of one half, in order; `all` keeps every pair."""
    return [pair for pair in pairs if half in ("all", pair.half)]


def _load_file(path: Path) -> list[PreferencePair]:
    pairs = [_pair(path, number, row) for number, row in read_json_lines(path)]
    require_rows(path, pairs)
    return pairs


def _pair(path: Path, number: int, row: dict[str, object]) -> PreferencePair:
    require_keys(path, number, row, {"prompt", "chosen", "rejected"}, {"source", "margin"})
    pair = PreferencePair(
        prompt=parse_messages(path, number, row["prompt"]),
        chosen=parse_text(path, number, row, "chosen"),
        rejected=parse_text(path, number, row, "rejected"),
        source=str(row.get("source", "")),
    )
    if pair.chosen == pair.rejected:
        raise DataError(path, number, "'chosen' and 'rejected' are equal")
    return pair
