"""What a worker is told when it starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from proxy_model.llm.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """Plain JSON."""

    folder: str
    """Of the LLM, with its tokenizer."""

    fingerprint: Mapping[str, str | int | float]
    vocab_size: int
    end_token_ids: list[int]
    max_candidates: int
    """Width K of the slates."""


class WorkerVocabulary:
    """The LLM's vocabulary; the tokenizer is only read when a grammar needs it."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._folder = setup.folder
        self.vocab_size = setup.vocab_size
        self.end_token_ids = frozenset(setup.end_token_ids)

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """Of the LLM."""
        from transformers import AutoTokenizer

        return ChatTokenizer(AutoTokenizer.from_pretrained(self._folder))
