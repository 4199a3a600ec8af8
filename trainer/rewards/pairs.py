"""Preference pairs as conversations to score."""

import json
from collections.abc import Sequence

from trainer.preferences import PreferencePair
from trainer.rewards.model import Conversation


def conversations_of(pairs: Sequence[PreferencePair]) -> list[Conversation]:
    """Chosen and rejected answer of each pair, in turns."""
    return [Conversation(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]


def sides_of(pairs: Sequence[PreferencePair]) -> tuple[list[Conversation], list[Conversation]]:
    """All chosen answers, and all rejected ones."""
    both = conversations_of(pairs)
    return both[0::2], both[1::2]


def num_shared(test: Sequence[PreferencePair], train: Sequence[PreferencePair]) -> int:
    """How many pairs of `test` are in `train`, whichever answer is the chosen one."""
    known = set(map(_content, train))
    return sum(_content(pair) in known for pair in test)


def _content(pair: PreferencePair) -> tuple[str, frozenset[str]]:
    return json.dumps(pair.prompt), frozenset((pair.chosen, pair.rejected))
