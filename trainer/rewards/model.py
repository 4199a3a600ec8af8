"""What a reward model is to its users."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from trainer.json_lines import Messages

Conversation = tuple[Messages, str]
"""The messages, ending with a user turn, and the answer to them."""


class RewardModel(Protocol):
    """Anything that says how good an answer is."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32 scores on the CPU, higher is better; one conversation's score does not depend on the others."""
        ...
