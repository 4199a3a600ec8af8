"""What form an answer must have, as a request says it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from proxy_model.errors import BadGrammar

GrammarKind = Literal["json_schema", "regex", "lark"]

MAX_GRAMMAR_BYTES = 1 << 16
MAX_SCHEMA_DEPTH = 48
"""Levels of JSON in a schema; one level of the answer takes two or three."""


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """A JSON schema (as JSON), a regular expression over the whole answer, or a grammar in llguidance's Lark."""

    kind: GrammarKind
    text: str

    def __post_init__(self) -> None:
        if len(self.text.encode("utf-8", "replace")) > MAX_GRAMMAR_BYTES:
            raise BadGrammar(f"it is larger than {MAX_GRAMMAR_BYTES} bytes")


ANY_JSON_OBJECT = GrammarSpec("json_schema", '{"type":"object"}')


def json_schema(schema: Mapping[str, Any]) -> GrammarSpec:
    """The grammar of the JSON texts that `schema` allows. Raises `BadGrammar` if it is too large or too deep."""
    if _depth(schema, MAX_SCHEMA_DEPTH + 1) > MAX_SCHEMA_DEPTH:
        raise BadGrammar(f"it is nested more than {MAX_SCHEMA_DEPTH} levels deep")
    return GrammarSpec("json_schema", json.dumps(schema, ensure_ascii=False, separators=(",", ":")))


def _depth(value: object, limit: int) -> int:
    """Levels of lists and objects in `value`, counted up to `limit`."""
    inner = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(inner, list) or limit == 0:
        return 0
    return 1 + max((_depth(each, limit - 1) for each in inner), default=0)
