"""JSON can spell half a character (`"\\ud800"`), which no tokenizer, log or answer can hold: where is the first one."""

import re
from typing import Any

_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")


def half_character_at(text: str, content: Any) -> str | None:
    """The path of a string in `content`, which was read from the JSON `text`, that holds one; None without."""
    if not _ESCAPED.search(text):
        return None
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str) and _HALF.search(value):
            return path
        if isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            waiting += [(path, key) for key in value]
            waiting += [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
    return None
