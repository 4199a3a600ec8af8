"""Log-probabilities in step with the text: an entry leaves together with the characters that its token stands for.

The engine holds text back (broken UTF-8, what may become a stop string); the texts of the entries that have left always
join to the content. A character of several tokens belongs to the last of them; a stop string takes its entries along.
"""

import codecs
from collections import deque
from collections.abc import Iterable

from proxy_model.request import TokenLogprob as EngineLogprob
from server.schemas.chat_response import TokenLogprob, TopLogprob


class TokenTexts:
    """The entries of one choice."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: deque[tuple[EngineLogprob, str]] = deque()
        self._num_shown = 0
        self._num_left = 0
        """Characters of the entries that have left."""

    def add(self, logprobs: Iterable[EngineLogprob], shown: str, *, is_last: bool) -> list[TokenLogprob]:
        """The entries that `shown`, the text that leaves now, completes. Tokens without text have none."""
        for entry in logprobs:
            if entry.bytes:
                self._waiting.append((entry, self._decoder.decode(entry.bytes)))
        if is_last:
            self._finish_last_character()
        self._num_shown += len(shown)
        leaving = []
        while self._waiting and self._num_left + len(self._waiting[0][1]) <= self._num_shown:
            entry, text = self._waiting.popleft()
            self._num_left += len(text)
            leaving.append(_entry(entry, text))
        if is_last and self._waiting and self._num_left < self._num_shown:
            entry, text = self._waiting.popleft()
            leaving.append(_entry(entry, text[: self._num_shown - self._num_left]))
            self._num_left = self._num_shown
        return leaving

    def _finish_last_character(self) -> None:
        rest = self._decoder.decode(b"", final=True)
        if rest and self._waiting:
            entry, text = self._waiting.pop()
            self._waiting.append((entry, text + rest))


def _entry(logprob: EngineLogprob, text: str) -> TokenLogprob:
    return TokenLogprob(
        token=text,
        logprob=_finite(logprob.logprob),
        bytes=list(logprob.bytes),
        top_logprobs=[
            TopLogprob(token=name, logprob=_finite(value), bytes=list(data)) for _, name, data, value in logprob.top
        ],
    )


def _finite(logprob: float) -> float:
    """OpenAI's number for an impossible token; JSON has no infinity."""
    return max(logprob, -9999.0)
