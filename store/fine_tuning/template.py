"""`{{item.x}}` and `{{sample.output_text}}`: a row of the training file and the answer to it, inside of a text."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from proxy_model.errors import InvalidParameter

MAX_CHARACTERS = 1 << 16

_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELD = re.compile(r"item\.(\w+(?:\.\w+)*)")
_ANSWER = "sample.output_text"


@dataclass(frozen=True, slots=True)
class Template:
    """A text with places to fill in. Texts between its braces that are neither of the two are refused."""

    text: str

    @classmethod
    def parse(cls, text: object, parameter: str) -> Self:
        """Raises `InvalidParameter` naming `parameter`."""
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            raise InvalidParameter(parameter, text, f"a text of at most {MAX_CHARACTERS} characters")
        for place in _places(text):
            if place != _ANSWER and not _FIELD.fullmatch(place):
                raise InvalidParameter(parameter, f"{{{{{place}}}}}", f"of {{{{item.<field>}}}} and {{{{{_ANSWER}}}}}")
        return cls(text)

    @property
    def fields(self) -> frozenset[str]:
        """The fields of a row that it needs, dotted where they are nested."""
        return frozenset(match[1] for place in _places(self.text) if (match := _FIELD.fullmatch(place)))

    def fill(self, item: Mapping[str, Any], answer: str) -> str:
        """The text; what is no string is written as JSON. Raises `KeyError` with the field that `item` lacks."""

        def value(match: re.Match[str]) -> str:
            place = match[1].strip()
            return answer if place == _ANSWER else _written(field_of(item, place.removeprefix("item.")))

        return _PLACE.sub(value, self.text)


def field_of(item: Mapping[str, Any], name: str) -> Any:
    """A field of a row by its dotted name. Raises `KeyError(name)`."""
    found: Any = item
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise KeyError(name)
        found = found[part]
    return found


def _places(text: str) -> list[str]:
    return [match[1].strip() for match in _PLACE.finditer(text)]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
