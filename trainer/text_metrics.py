"""What a text looks like, without asking any model: repetition, variety, broken words.

Words are maximal runs of letters (with inner apostrophes), lower-cased; other tokens do not count as words.
"""

import re
from collections.abc import Iterable, Sequence

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


def dictionary(texts: Iterable[str]) -> frozenset[str]:
    """Every word of `texts`."""
    return frozenset(word for text in texts for word in words(text))


def garble_rate(texts: Iterable[str], known: frozenset[str]) -> float:
    """Share of the words of `texts` that are not in `known`, plural and possessive endings aside."""
    num_words = num_unknown = 0
    for text in texts:
        found = words(text)
        num_words += len(found)
        num_unknown += sum(not _is_known(word, known) for word in found)
    return num_unknown / num_words if num_words else 0.0


def _ngrams(tokens: Sequence[object], n: int) -> set[tuple[object, ...]]:
    return {tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)}


def _is_known(word: str, known: frozenset[str]) -> bool:
    return word in known or any(
        word.removesuffix(ending) in known for ending in ("'s", "s", "es") if word.endswith(ending)
    )
