"""The score that an LLM behind an endpoint gives an answer: OpenAI's score_model grader."""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from store.fine_tuning.graders import ScoreModelGrader
from trainer.rewards.endpoint import ChatEndpoint
from trainer.rewards.model import Conversation
from trainer.rewards.text_graders import filled

_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?!\.?\w)")


@dataclass(frozen=True, slots=True)
class ScoreModel:
    """Asks for one number in the grader's range."""

    grader: ScoreModelGrader
    endpoint: ChatEndpoint

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) in `grader.range`. Raises `GraderFailed`, `CostCeilingReached`."""
        with ThreadPoolExecutor(self.endpoint.config.parallel) as pool:
            return torch.tensor(list(pool.map(self._ask, conversations)))

    def _ask(self, conversation: Conversation) -> float:
        question = self._question(conversation)
        return self.endpoint.ask(self.grader.name, question, lambda text: number_in(text, *self.grader.range))

    def _question(self, conversation: Conversation) -> dict[str, Any]:
        low, high = self.grader.range
        messages = [
            {"role": each.role, "content": filled(self.grader.name, each.content, conversation)}
            for each in self.grader.input
        ]
        demand = f"Answer with one number from {low:g} to {high:g} and nothing else."
        sampling = {name: value for name, value in asdict(self.grader.sampling_params).items() if value is not None}
        if "max_completions_tokens" in sampling:
            sampling["max_completion_tokens"] = sampling.pop("max_completions_tokens")
        return {"model": self.grader.model, "messages": with_instruction(messages, demand), **sampling}


def with_instruction(messages: Sequence[dict[str, str]], text: str) -> list[dict[str, str]]:
    """`text` at the end of the system message, or as one: many LLMs take only one, in front."""
    known = [{**each, "role": "system"} if each["role"] == "developer" else each for each in messages]
    if known[0]["role"] == "system":
        return [{"role": "system", "content": f"{known[0]['content']}\n\n{text}"}, *known[1:]]
    return [{"role": "system", "content": text}, *known]


def number_in(text: str, low: float, high: float) -> float | None:
    """The one number of an answer, or the `score` or `result` of one in JSON; None without it or out of range."""
    try:
        found = json.loads(text)
    except ValueError:
        numbers = _NUMBER.findall(text)
        found = float(numbers[0]) if len(numbers) == 1 else None
    if isinstance(found, dict):
        found = found.get("score", found.get("result"))
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if is_number and low <= found <= high else None
