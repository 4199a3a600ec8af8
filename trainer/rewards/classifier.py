"""Any sequence-classification model of transformers as a reward: one logit is the score, of several the last one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from proxy_model.errors import ModelUnavailable
from trainer.rewards.model import Conversation

_TEXTS_PER_PASS = 16
_MAX_TOKENS = 1024


class ClassifierReward:
    """Weights from safetensors only, and none of the model's own code is run."""

    def __init__(self, model: str) -> None:
        """`model` is a folder or a hub id. Raises `ModelUnavailable`."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(
                model, dtype=torch.float32, use_safetensors=True
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ModelUnavailable(f"the classifier {model} cannot be loaded: {error}") from error
        self._tokenizer.truncation_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.config.pad_token_id = self._tokenizer.pad_token_id

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32 logits. Of texts that are too long the end is read."""
        texts = [self._text(each) for each in conversations]
        found = [torch.zeros(0)]
        for start in range(0, len(texts), _TEXTS_PER_PASS):
            some = texts[start : start + _TEXTS_PER_PASS]
            encoded = self._tokenizer(
                some,
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
                add_special_tokens=not self._tokenizer.chat_template,
            )
            found.append(self._model(**encoded).logits[:, -1].float())
        return torch.cat(found)

    def _text(self, conversation: Conversation) -> str:
        """By the model's chat template, or without one as plain turns."""
        messages = [*conversation.messages, {"role": "assistant", "content": conversation.answer}]
        if self._tokenizer.chat_template:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False))
        return "\n\n".join(f"{each['role'].capitalize()}: {each['content']}" for each in messages)
