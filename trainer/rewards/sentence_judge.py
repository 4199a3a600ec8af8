"""The judge: a reward model that shares neither features nor training pairs with the reward that trains a proxy.

Two linear Bradley-Terry heads, on a sentence encoder's states and on a bag of words, added with the weights that order
the judge's own pairs best under cross-validation.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from proxy_model.errors import BadCheckpoint, FingerprintMismatch, InvalidParameter
from trainer.rewards.bag_of_words import BagOfWords
from trainer.rewards.folder import StoredReward
from trainer.rewards.linear_head import LinearHead
from trainer.rewards.model import Conversation
from trainer.rewards.sentence_features import SentenceEncoder, SentenceFeatures
from trainer.rewards.sentence_source import find_encoder

KIND = "sentence_judge"


@dataclass(frozen=True, slots=True)
class WordHead:
    """score = tfidf(answer) @ weights."""

    bag: BagOfWords
    weights: Tensor

    def score(self, texts: Sequence[str]) -> Tensor:
        """(B,) float32, in the units of the Bradley-Terry margin."""
        scores: Tensor = self.bag.vectors(texts) @ self.weights
        return scores


@dataclass(frozen=True, slots=True)
class SentenceJudge:
    """The sum of a sentence head and a word head."""

    encoder: SentenceEncoder
    head: LinearHead
    words: WordHead
    mixture: tuple[float, float]
    """Factors of the sentence head's and of the word head's score."""

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32, in the units of the Bradley-Terry margin: a difference d means odds of e^d."""
        if not conversations:
            return torch.zeros(0)
        by_sentence, by_words = self.sentence_scores(conversations), self.word_scores(conversations)
        return self.mixture[0] * by_sentence + self.mixture[1] * by_words

    def sentence_scores(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) of the sentence head alone, in deviations of its training answers' scores."""
        max_words = self.encoder.features.max_words
        read = torch.stack(list(self.encoder.read(conversations, max_words)))
        return self.head.score(read, log_words(conversations, max_words))

    def word_scores(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) of the word head alone."""
        features = self.encoder.features
        return self.words.score(cut_answers(features, conversations, features.max_words))

    def stored(self, card: dict[str, Any]) -> StoredReward:
        """What `write_reward` takes; the encoder's own weights are not copied."""
        features = self.encoder.features
        return StoredReward(
            kind=KIND,
            reads={**asdict(features), "taps": list(features.taps)},
            fingerprint=dict(self.encoder.fingerprint),
            tensors={
                **self.head.tensors(),
                "word_idf": self.words.bag.idf,
                "word_weights": self.words.weights,
                "mixture": torch.tensor(self.mixture),
            },
            vocabulary={"terms": sorted(self.words.bag.index, key=self.words.bag.index.__getitem__)},
            card=card,
        )

    @classmethod
    def from_stored(cls, stored: StoredReward, encoder_folder: Path | None) -> Self:
        """Raises `FingerprintMismatch` for another encoder, `BadCheckpoint("format")`, `ModelUnavailable`."""
        try:
            features = SentenceFeatures(**{**stored.reads, "taps": tuple(stored.reads["taps"])})
        except (TypeError, KeyError, InvalidParameter) as error:
            raise BadCheckpoint("format", f"the judge's settings are broken: {error}") from error
        encoder = SentenceEncoder(find_encoder(encoder_folder), features)
        for key, expected in encoder.fingerprint.items():
            if stored.fingerprint.get(key) != expected:
                raise FingerprintMismatch(key, expected, stored.fingerprint.get(key))
        tensors = dict(stored.tensors)
        words = _word_head(
            stored.vocabulary.get("terms"), tensors.pop("word_idf", None), tensors.pop("word_weights", None)
        )
        mixture = tensors.pop("mixture", torch.zeros(0))
        if mixture.shape != (2,):
            raise BadCheckpoint("format", "the judge has no mixture of two factors")
        head = LinearHead.from_tensors(tensors, encoder.width)
        return cls(encoder, head, words, (float(mixture[0]), float(mixture[1])))


def cut_answers(features: SentenceFeatures, conversations: Sequence[Conversation], max_words: int) -> list[str]:
    """The answers' first words."""
    return [features.cut(each.answer, max_words) for each in conversations]


def log_words(conversations: Sequence[Conversation], max_words: int) -> Tensor:
    """(B,) natural logarithms of the words that are read."""
    counts = [min(max(1, len(each.answer.split())), max_words) for each in conversations]
    return torch.tensor(counts, dtype=torch.float32).log()


def _word_head(terms: Any, idf: Tensor | None, weights: Tensor | None) -> WordHead:
    is_list = isinstance(terms, list) and all(type(term) is str for term in terms)
    if not is_list or idf is None or weights is None or not (idf.shape == weights.shape == (len(terms),)):
        raise BadCheckpoint("format", "the judge's words, their frequencies and their weights do not agree")
    return WordHead(BagOfWords({term: number for number, term in enumerate(terms)}, idf), weights)
