"""Preference pairs as conversations to score."""

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
