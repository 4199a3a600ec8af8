"""What a sentence encoder says about an answer: the mean state of its words, at some layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from proxy_model.errors import InvalidParameter, ModelUnavailable
from proxy_model.manifest import describe
from trainer.rewards.model import Conversation

_TEXTS_PER_PASS = 32
_MAX_PROMPT_CHARACTERS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceFeatures:
    """Which states are read. F = width * len(taps), twice that with the prompt."""

    taps: tuple[int, ...] = (2, 4)
    """Layers, numbered from 1. Late layers keep the topic and lose the manner."""

    max_words: int = 90
    """An answer counts up to here; about 120 tokens of the LLM."""

    with_prompt: bool = False
    """Adds the states of the answer's words when they are read after the end of the conversation."""

    def __post_init__(self) -> None:
        if not self.taps or min(self.taps) < 1:
            raise InvalidParameter("taps", self.taps, "layer numbers from 1")
        if self.max_words < 1:
            raise InvalidParameter("max_words", self.max_words, "at least 1")

    def cut(self, answer: str, max_words: int) -> str:
        """The first words of `answer`; never empty."""
        return " ".join(answer.split()[: min(max_words, self.max_words)]) or "."


class SentenceEncoder:
    """A BERT-like encoder of transformers, run up to the last layer that is read."""

    def __init__(self, folder: Path, features: SentenceFeatures) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelUnavailable(f"the sentence encoder in {folder} cannot be loaded: {error}") from error
        num_layers = model.config.num_hidden_layers
        if max(features.taps) > num_layers:
            raise InvalidParameter("taps", features.taps, f"layer numbers in [1, {num_layers}]")
        model.encoder.layer = nn.ModuleList(list(model.encoder.layer)[: max(features.taps)])
        self._model: Any = model
        self.features = features
        self.width: int = model.config.hidden_size * len(features.taps) * (2 if features.with_prompt else 1)
        self.fingerprint = {"encoder_weights": describe(folder / "model.safetensors").sha256[:16]}

    def read(self, conversations: Sequence[Conversation], max_words: int) -> Iterator[Tensor]:
        """(F,) float32 of each conversation's answer, cut at `max_words`, in order."""
        for start in range(0, len(conversations), _TEXTS_PER_PASS):
            some = conversations[start : start + _TEXTS_PER_PASS]
            answers = [self.features.cut(each.answer, max_words) for each in some]
            read = self._means(answers, None)
            if self.features.with_prompt:
                read = torch.cat([read, self._means(answers, [_context(each.messages) for each in some])], dim=1)
            yield from read

    @torch.no_grad()
    def _means(self, answers: list[str], contexts: list[str] | None) -> Tensor:
        """(B, width of one part): states of the answers' tokens, averaged."""
        first, second = (answers, None) if contexts is None else (contexts, answers)
        encoded = self._tokenizer(first, second, truncation=True, max_length=256, padding=True, return_tensors="pt")
        states = self._model(**encoded, output_hidden_states=True).hidden_states
        is_answer = encoded["attention_mask"].bool()
        if contexts is not None:
            is_answer &= encoded["token_type_ids"].bool()
        weights = is_answer.float() / is_answer.sum(dim=1, keepdim=True)
        return torch.cat([torch.einsum("bt,btd->bd", weights, states[tap]) for tap in self.features.taps], dim=1)


def _context(messages: Sequence[dict[str, str]]) -> str:
    """The end of the conversation."""
    return "\n".join(message["content"] for message in messages[-3:])[-_MAX_PROMPT_CHARACTERS:]
