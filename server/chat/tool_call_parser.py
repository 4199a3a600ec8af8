"""From an answer's text to its calls of tools, as the text comes; what is no call stays text."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call; `arguments` are JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Marks:
    """The parts of a tool format that clients would see, without the space around them."""

    opening: str
    between: str
    closing: str
    name_key: str
    arguments_key: str

    @property
    def is_anywhere(self) -> bool:
        """Whether the opening says enough to be looked for behind other text."""
        return any(character.isalnum() for character in self.opening)


class ToolCallParser:
    """Feed it text; it returns the text that is no call, and the calls that are complete."""

    def __init__(self, marks: Marks, *, is_in_call: bool) -> None:
        self._marks = marks
        self._held = ""
        self._read = self._read_call if is_in_call else self._read_text
        self._scan = _ObjectScan()
        self._num_calls = 0
        self._has_begun = False
        """Text that is no call has come: a weak opening means nothing any more."""

        self._text: list[str] = []
        self._calls: list[ToolCall] = []

    def add(self, text: str) -> tuple[str, list[ToolCall]]:
        """What `text` completes. Space before a call and after one is dropped."""
        self._held += text
        while self._read():
            pass
        return self._taken()

    def finish(self) -> tuple[str, list[ToolCall]]:
        """What was held back, at the end of the answer: a call that was cut off is text."""
        if self._read == self._read_call and self._held:
            self._text.append(self._marks.opening)
        if self._read != self._read_after and not (self._num_calls and self._held.isspace()):
            self._text.append(self._held)
        self._held = ""
        return self._taken()

    def _taken(self) -> tuple[str, list[ToolCall]]:
        text, calls = "".join(self._text), self._calls
        self._text, self._calls = [], []
        return text, calls

    def _read_text(self) -> bool:
        """Up to the opening of a call; returns whether to go on."""
        marks = self._marks
        if not marks.is_anywhere:
            return self._read_start()
        place = self._held.find(marks.opening)
        end = place if place >= 0 else len(self._held) - _overlap(self._held, marks.opening)
        self._say(self._held[:end].rstrip())
        if place < 0:
            return False
        self._begin_call(self._held.find(marks.opening) + len(marks.opening))
        return True

    def _read_start(self) -> bool:
        """Whether the answer begins with a weak opening and an object; else all of it is text."""
        mark = self._marks.opening + "{"
        rest = "".join(self._held.split())[: len(mark)]
        if self._has_begun or self._num_calls or not mark.startswith(rest):
            self._say(self._held)
            return False
        if rest != mark:
            return False
        self._begin_call(self._held.index("{"))
        return True

    def _say(self, shown: str) -> None:
        """Let the first characters that are held go."""
        if shown:
            self._has_begun = True
            self._text.append(shown)
            self._held = self._held[len(shown) :]

    def _begin_call(self, place: int) -> None:
        self._held = self._held[place:].lstrip()
        self._scan = _ObjectScan()
        self._read = self._read_call

    def _read_call(self) -> bool:
        """Up to the end of the object."""
        self._held = self._held if self._scan.place else self._held.lstrip()
        end = self._scan.end(self._held)
        if end is None:
            return False
        call = self._call(self._held[:end])
        if call is None:
            self._text.append(self._marks.opening + self._held[:end])
            self._read = self._read_text
        else:
            self._calls.append(call)
            self._num_calls += 1
            self._read = self._read_after
        self._held = self._held[end:]
        return True

    def _call(self, text: str) -> ToolCall | None:
        try:
            content: Any = json.loads(text)
        except (ValueError, RecursionError):
            return None
        name = content.get(self._marks.name_key) if isinstance(content, dict) else None
        if not isinstance(name, str) or not name:
            return None
        arguments = content.get(self._marks.arguments_key, {})
        is_written = isinstance(arguments, str)
        return ToolCall(name, arguments if is_written else json.dumps(arguments, ensure_ascii=False))

    def _read_after(self) -> bool:
        """What follows a call: another one, the closing, or text."""
        rest = self._held.lstrip()
        between, closing = self._marks.between, self._marks.closing
        if between and rest.startswith(between):
            self._begin_call(len(self._held) - len(rest) + len(between))
            return True
        if any(mark.startswith(rest) and mark != rest for mark in (between, closing)):
            return False
        self._held = rest.removeprefix(closing).lstrip()
        self._read = self._read_text
        return True


class _ObjectScan:
    """Looks for the end of a JSON object as its text grows."""

    def __init__(self) -> None:
        self.place = 0
        self._depth = 0
        self._is_string = False
        self._is_escaped = False

    def end(self, text: str) -> int | None:
        """Where the object in `text`, which has only grown since the last call, ends; 0 if it begins with none."""
        while self.place < len(text):
            self._step(text[self.place])
            self.place += 1
            if self._depth == 0:
                return self.place if text[0] == "{" else 1
        return None

    def _step(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif self._is_string:
            self._is_escaped = character == "\\"
            self._is_string = character != '"'
        elif character == '"':
            self._is_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
