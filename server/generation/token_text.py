"""What is told about tokens, in step with the text: an entry leaves with the characters that its token stands for.

The engine holds text back (broken UTF-8, what may become a stop string); the texts of the entries that have left always
join to the content. A character of several tokens belongs to the last of them; a stop string's tokens bring no text.
"""

import codecs
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class TokenTexts(Generic[T]):
    """The entries of one choice, one a token, of whatever kind."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: deque[tuple[T, bytes, str]] = deque()
        self._num_shown = 0
        self._num_left = 0
        """Characters of the entries that have left."""

    def add(self, entries: Iterable[tuple[T, bytes]], shown: str, *, is_last: bool) -> list[tuple[T, str]]:
        """The entries (given with their tokens' bytes) that `shown`, the text that leaves now, completes; their texts.

        At the end the rest leaves too: a token that a stop string cut with what is shown of it, others without text.
        """
        self._waiting += [(entry, data, self._decoder.decode(data)) for entry, data in entries]
        if is_last:
            self._finish_last_character()
        self._num_shown += len(shown)
        leaving = []
        while self._waiting and (is_last or self._may_leave()):
            entry, _, text = self._waiting.popleft()
            text = text[: self._num_shown - self._num_left]
            self._num_left += len(text)
            leaving.append((entry, text))
        return leaving

    def _may_leave(self) -> bool:
        """Whether the first entry's text is shown and none of its bytes waits for the rest of a character."""
        is_whole = len(self._waiting) > 1 or not self._decoder.getstate()[0]
        return is_whole and self._num_left + len(self._waiting[0][2]) <= self._num_shown

    def _finish_last_character(self) -> None:
        """Bytes that never became a character belong to the last token that has any."""
        rest = self._decoder.decode(b"", final=True)
        for index in reversed(range(len(self._waiting))):
            entry, data, text = self._waiting[index]
            if data:
                self._waiting[index] = (entry, data, text + rest)
                return
