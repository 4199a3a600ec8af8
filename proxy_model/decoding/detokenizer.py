"""Tokens to text as they come: broken UTF-8 and possible stop strings are held back, never leaked."""

import codecs
from collections.abc import Sequence


class Detokenizer:
    """The text of one answer. Feed it the tokens' bytes; it returns what may be shown."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.is_stopped = False
        """A stop string has come out; the text ends before it."""

    def add(self, token_bytes: bytes) -> str:
        """The text that is now certain, after one more token."""
        self._held += self._decoder.decode(token_bytes)
        return self._release()

    def finish(self) -> str:
        """What was held back, at the end of the answer."""
        if self.is_stopped:
            return ""
        self._held += self._decoder.decode(b"", final=True)
        shown = self._release()
        shown, self._held = shown + self._held, ""
        return shown

    def _release(self) -> str:
        found = [position for stop in self._stop if (position := self._held.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
