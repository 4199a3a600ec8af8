"""TF-IDF of words and pairs of words: what a text says, without any network."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from trainer.evaluation.text_metrics import words


@dataclass(frozen=True, slots=True)
class BagOfWords:
    """Terms with their inverse document frequencies; a text becomes a vector of length 1."""

    index: dict[str, int]
    idf: Tensor

    @classmethod
    def of(cls, texts: Sequence[str], min_texts: int = 3) -> Self:
        """The terms that occur in at least `min_texts` of `texts`."""
        counts = Counter(term for text in texts for term in set(terms(text)))
        kept = sorted(term for term, count in counts.items() if count >= min_texts)
        idf = [math.log((1 + len(texts)) / (1 + counts[term])) + 1 for term in kept]
        return cls({term: number for number, term in enumerate(kept)}, torch.tensor(idf))

    def vectors(self, texts: Iterable[str]) -> Tensor:
        """(B, V) sparse float32: (1 + log count) * idf, each row divided by its length; unknown terms are dropped."""
        rows, columns, values = [], [], []
        num_texts = 0
        for number, text in enumerate(texts):
            num_texts += 1
            found = self._weights(text)
            rows += [number] * len(found)
            columns += list(found)
            values += list(found.values())
        shape = (num_texts, len(self.index))
        return torch.sparse_coo_tensor(
            torch.tensor([rows, columns], dtype=torch.long), torch.tensor(values), shape, check_invariants=False
        )

    def _weights(self, text: str) -> dict[int, float]:
        counts = Counter(self.index[term] for term in terms(text) if term in self.index)
        weights = {term: (1 + math.log(count)) * float(self.idf[term]) for term, count in counts.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {term: weight / length for term, weight in sorted(weights.items())}


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words."""
    found = words(text)
    return found + [f"{first} {second}" for first, second in pairwise(found)]
