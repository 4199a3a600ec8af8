"""Rows of a job's file whose prompts leave room for an answer of the proxy's own: those that such a job learns from."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy_model.llm.tokenizer import ChatTokenizer
from store.fine_tuning.training_file import NUM_SHOWN
from trainer.config import RolloutConfig

TokenizerOf = Callable[[str], tuple[ChatTokenizer, int]]
"""`proxy_model.llm.identity.open_tokenizer`, or what stands in for it."""


@dataclass(slots=True)
class FittingRows:
    """Keeps the rows of a file that fit, and counts the others."""

    tokenizer: ChatTokenizer
    max_prompt_tokens: int
    num_fitting: int = 0
    too_long: list[int] = field(default_factory=list)
    """Their lines, from 1."""

    @classmethod
    def of(cls, rollout: RolloutConfig, tokenizer: ChatTokenizer, max_context: int) -> "FittingRows":
        """Of prompts that may be answered as `rollout` says."""
        return cls(tokenizer, min(rollout.max_prompt_tokens, max_context - rollout.max_tokens))

    def of_file(
        self, rows: Iterable[tuple[int, Mapping[str, Any]]], before_row: Callable[[], None]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Numbered rows in, those of them that fit out; what `before_row` raises ends it."""
        for number, row in rows:
            before_row()
            messages = [dict(message) for message in row["prompt"]]
            if len(self.tokenizer.apply_chat_template(messages)) > self.max_prompt_tokens:
                self.too_long.append(number)
            else:
                self.num_fitting += 1
                yield number, row

    @property
    def told(self) -> str:
        """How many rows fit, and which do not."""
        num_rows = self.num_fitting + len(self.too_long)
        lines = ", ".join(map(str, self.too_long[:NUM_SHOWN]))
        more = len(self.too_long) - NUM_SHOWN
        return (
            f"{self.num_fitting} of {num_rows} rows ({self.num_fitting / num_rows:.1%}) can be learnt from; "
            f"{len(self.too_long)} have prompts above {self.max_prompt_tokens} tokens: "
            f"lines {lines}{f' and {more} more' if more > 0 else ''}"
        )
