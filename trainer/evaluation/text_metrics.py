"""What a text looks like, without asking any model: repetition, variety, broken words.

Words are maximal runs of letters (with inner apostrophes), lower-cased; other tokens do not count as words.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The lower-case words of `text` in order, typographic apostrophes made plain."""
    return [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]


def repetition(tokens: Sequence[object], n: int = 4) -> float:
    """rep-n: 1 - distinct n-grams / n-grams of one text, 0 for a text without any."""
    total = len(tokens) - n + 1
    return 1 - len(_ngrams(tokens, n)) / total if total > 0 else 0.0


def distinct(texts: Iterable[Sequence[object]], n: int = 2) -> float:
    """distinct-n: different n-grams / n-grams over all texts together, 0 when there are none."""
    seen: set[tuple[object, ...]] = set()
    total = 0
    for tokens in texts:
        seen |= _ngrams(tokens, n)
        total += max(0, len(tokens) - n + 1)
    return len(seen) / total if total else 0.0


def english_words() -> frozenset[str]:
    """Words and names that English texts use, of `wordfreq`'s large list (321,180, most of them several times)."""
    from wordfreq import get_frequency_dict

    return frozenset(get_frequency_dict("en", wordlist="large"))


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Which words are real: those of a body of text, and those of the base's answers to other prompts.

    A base that would vouch for its own answers could never be garbled; so a word of answer i counts as known when the
    base uses it in an answer to another prompt than i.
    """

    known: frozenset[str]
    base_words: tuple[frozenset[str], ...]
    """Words of the base's answer to each prompt."""

    num_answers: Counter[str]
    """Base answers that hold a word."""

    @classmethod
    def of(cls, texts: Iterable[str], base_answers: Sequence[str]) -> Self:
        """From any texts and the base's answers, in the order of the prompts."""
        known = frozenset(word for text in texts for word in words(text))
        base_words = tuple(frozenset(words(answer)) for answer in base_answers)
        return cls(known, base_words, Counter(word for answer in base_words for word in answer))

    def garble_rate(self, answers: Sequence[str]) -> float:
        """Share of the words of `answers`, in the order of the prompts, that are not known."""
        num_words = num_unknown = 0
        for number, answer in enumerate(answers):
            found = words(answer)
            num_words += len(found)
            num_unknown += sum(not self._is_known(word, number) for word in found)
        return num_unknown / num_words if num_words else 0.0

    def _is_known(self, word: str, number: int) -> bool:
        """A plural or possessive is known when its stem is."""
        stems = [word, *(word.removesuffix(ending) for ending in ("'s", "es", "s") if word.endswith(ending))]
        return any(stem in self.known or self._is_in_other_answer(stem, number) for stem in stems)

    def _is_in_other_answer(self, word: str, number: int) -> bool:
        return self.num_answers[word] > (word in self.base_words[number])


def without_broken_end(text: str) -> str:
    """A text that was cut off, without its last word, which may be half of one."""
    return text.rpartition(" ")[0]


def _ngrams(tokens: Sequence[object], n: int) -> set[tuple[object, ...]]:
    return {tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)}
