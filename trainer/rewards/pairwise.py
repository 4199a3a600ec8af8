"""Which of two answers is better, by an LLM behind an endpoint that is shown them in both orders.

A model that prefers a place to an answer contradicts itself when they are swapped: that counts as a tie.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.json_lines import Messages
from trainer.preferences import PreferencePair
from trainer.rewards.endpoint import ChatEndpoint
from trainer.rewards.score_model import with_instruction

Verdict = Literal["first", "second", "tie"]

CRITERION = "Which answer is more helpful, honest and harmless?"

_NAME = "pairwise judge"
_VERDICT = re.compile(r"\b(A|B|tie)\b", re.IGNORECASE)
_SAID: dict[str, Verdict] = {"a": "first", "b": "second", "tie": "tie"}
_SWAPPED: dict[Verdict, Verdict] = {"first": "second", "second": "first", "tie": "tie"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseJudge:
    """`model` at `endpoint`, asked by `criterion`."""

    endpoint: ChatEndpoint
    model: str
    criterion: str = CRITERION

    def compare(self, prompt: Messages, first: str, second: str) -> Verdict:
        """The verdict that holds in both orders, else a tie. Raises `GraderFailed`, `CostCeilingReached`."""
        if first == second:
            return "tie"
        straight, swapped = self.opinions(prompt, first, second)
        return straight if straight == swapped else "tie"

    def opinions(self, prompt: Messages, first: str, second: str) -> tuple[Verdict, Verdict]:
        """The verdict on two answers, and that when they are shown the other way round.

        Raises `GraderFailed`, `GraderUnclear`, `CostCeilingReached`.
        """
        return self._ask(prompt, first, second), _SWAPPED[self._ask(prompt, second, first)]

    def label(self, pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
        """The pairs as this judge prefers them, those turned round that it sees so; ties are left out."""
        verdicts = [self.compare(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
        turned = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs]
        choices = {"first": pairs, "second": turned}
        return [choices[verdict][index] for index, verdict in enumerate(verdicts) if verdict != "tie"]

    def _ask(self, prompt: Messages, first: str, second: str) -> Verdict:
        return self.endpoint.ask(_NAME, self._question(prompt, first, second), verdict_in)

    def _question(self, prompt: Messages, first: str, second: str) -> dict[str, Any]:
        talk = "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
        content = f"[Conversation]\n{talk}\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}\n\n{self.criterion}"
        demand = "You compare two answers to a conversation. Reply with A, B or tie and nothing else."
        messages = with_instruction([{"role": "user", "content": content}], demand)
        return {"model": self.model, "messages": messages, "temperature": 0}


def verdict_in(text: str) -> Verdict | None:
    """The one verdict of an answer; None without it, or with several."""
    found = {match.lower() for match in _VERDICT.findall(text)}
    return _SAID[found.pop()] if len(found) == 1 else None
