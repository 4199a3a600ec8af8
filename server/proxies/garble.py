"""How garbled a text looks: a cheap, bounded measure without a dictionary, for comparing two versions.

A word (a run of non-blanks) is garbled if it holds a replacement or control character, a character four times in a row,
two changes from lower to upper case, six consonants of the Latin alphabet in a row, or more than 32 characters; or if
it and the two words before it are the same. Only the first 4,096 characters of an answer are looked at. Links, code and
names trip it up now and then: what counts is the difference between versions that answer the same kind of requests.
"""

import re
from dataclasses import dataclass

MAX_CHARACTERS = 4096
_MAX_LENGTH = 32
_GARBLED = re.compile(
    r"[\ufffd\x00-\x1f\x7f]|([^\W\d_])\1{3}|[a-z][A-Z].*[a-z][A-Z]|(?i:[bcdfghjklmnpqrstvwxz]{6})", re.ASCII | re.DOTALL
)
_ENDS = ".,;:!?\"'()[]*`"


@dataclass(frozen=True, slots=True)
class WordCount:
    """Of one text."""

    num_words: int
    num_garbled: int


def count_garbled(text: str) -> WordCount:
    """The words of the beginning of `text`, and how many of them are garbled."""
    words = [stripped for word in text[:MAX_CHARACTERS].split() if (stripped := word.strip(_ENDS))]
    num_garbled = sum(_is_garbled(words, place) for place in range(len(words)))
    return WordCount(len(words), num_garbled)


def _is_garbled(words: list[str], place: int) -> bool:
    word = words[place]
    is_stuttered = place >= 2 and words[place - 2].lower() == words[place - 1].lower() == word.lower()
    return is_stuttered or len(word) > _MAX_LENGTH or _GARBLED.search(word) is not None
