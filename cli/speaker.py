"""Whoever is at the other end of `proxy-rlhf chat`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """How answers are decoded."""

    max_tokens: int
    temperature: float
    seed: int | None


class Speaker(Protocol):
    """Whoever answers."""

    note: str
    """About the last answer: which proxy, and how many tokens it rejected."""

    def answer(self, messages: list[Message]) -> Iterator[str]:
        """The answer in pieces as they come."""
        ...
