"""Prompt lookup: tokens that may come next are those that once came after the newest two, in the prompt or the answer.

Answers quote their prompts and repeat themselves, so such a draft costs nothing but its rows in the next pass, which
says how much of it was right (arXiv:2304.04487, with a window of two).
"""

from collections.abc import Sequence
from itertools import cycle, islice, pairwise


class PromptLookup:
    """What one answer may go on with."""

    def __init__(self, prompt: Sequence[int], prediction: Sequence[int] = ()) -> None:
        """`prediction` is what the caller believes that the answer will be, from its beginning."""
        self._history = [*prediction, *prompt]
        self._followers = {pair: index + 2 for index, pair in enumerate(pairwise(self._history[:-1]))}
        self._cursor = 0 if prediction else None
        """Where in the history the next token stands already, if it goes on as it did there."""

    def add(self, token: int) -> None:
        """The answer goes on with `token`."""
        history, cursor = self._history, self._cursor
        self._cursor = cursor + 1 if cursor is not None and history[cursor] == token else None
        if len(history) > 1:
            self._followers[history[-2], history[-1]] = len(history)
        history.append(token)

    def draft(self, limit: int) -> list[int]:
        """At most `limit` tokens; a text that has come to the history's end is taken to repeat itself."""
        history = self._history
        if self._cursor is None and len(history) > 1:
            self._cursor = self._followers.get((history[-2], history[-1]))
        if self._cursor is None:
            return []
        return list(islice(cycle(history[self._cursor : self._cursor + max(0, limit)]), max(0, limit)))
