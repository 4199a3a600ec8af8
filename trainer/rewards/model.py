"""What a reward model is to its users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from trainer.json_lines import Messages


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt and the answer to it."""

    messages: Messages
    """Ends with a user turn."""

    answer: str
    item: Mapping[str, Any] = field(default_factory=dict)
    """What else the prompt's file says of it, for graders that compare: `{{item.<field>}}`."""

    source: str = ""
    """Where the prompt comes from, for rewards that are for prompts of some sources only."""


class RewardModel(Protocol):
    """Anything that says how good an answer is."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32 scores on the CPU, higher is better; one conversation's score does not depend on the others.

        Raises `GraderFailed` where there is no score to be had.
        """
        ...
