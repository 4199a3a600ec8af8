"""Rules: graders that look at the answer alone and need no model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import regex

from proxy_model.errors import InvalidParameter
from store.fine_tuning.json_schema import compile_schema
from store.fine_tuning.require import require, require_text

MAX_KEYWORDS = 200
MAX_RUN = 64
MAX_PATTERN_CHARACTERS = 1000
MAX_SCHEMA_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthGrader:
    """How long the answer is, in tokens; exactly one of the three is given."""

    type: ClassVar[str] = "length"
    name: str
    target: int | None = None
    """1 at so many tokens, falling to 0 at none and at twice as many."""

    upper_bound: int | None = None
    """1 up to so many tokens, falling to 0 at twice as many."""

    per_token: float | None = None
    """So much for every token; below 0 for short answers."""

    def __post_init__(self) -> None:
        given = [n for n in ("target", "upper_bound", "per_token") if getattr(self, n) is not None]
        require(len(given) == 1, "target", given, "given, or else `upper_bound` or `per_token`, and only one of them")
        value = getattr(self, given[0])
        if given[0] == "per_token":
            is_allowed = type(value) in (int, float) and 0 < abs(value) <= 1e3
            require(is_allowed, "per_token", value, "a number in [-1000, 1000] other than 0")
        else:
            require(type(value) is int and 1 <= value <= 1 << 20, given[0], value, "a number of tokens, at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctGrader:
    """Share of the answer's runs of `n` tokens that it has not said before: 1 - rep-n, 1 where there is none.

    A reward that is a mean over tokens does not mind repetition; this one does.
    """

    type: ClassVar[str] = "distinct"
    name: str
    n: int = 4

    def __post_init__(self) -> None:
        require(type(self.n) is int and 1 <= self.n <= MAX_RUN, "n", self.n, f"a number of tokens in [1, {MAX_RUN}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordsGrader:
    """Share of the wanted words that the answer has, less the share of the forbidden ones, whatever the case."""

    type: ClassVar[str] = "keywords"
    name: str
    wanted: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("wanted", "forbidden"):
            words = getattr(self, name)
            are_words = type(words) is tuple and all(isinstance(word, str) and word.strip() for word in words)
            require(are_words and len(words) <= MAX_KEYWORDS, name, words, f"a list of at most {MAX_KEYWORDS} words")
        require(bool(self.wanted or self.forbidden), "wanted", (), "given, or else `forbidden`")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonGrader:
    """1 for an answer that is JSON as a whole, and follows the JSON schema if there is one, else 0."""

    type: ClassVar[str] = "json"
    name: str
    schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.schema is not None:
            allowed = f"a JSON schema of at most {MAX_SCHEMA_CHARACTERS} characters"
            is_object = issubclass(type(self.schema), Mapping)
            require(is_object and len(json.dumps(self.schema)) <= MAX_SCHEMA_CHARACTERS, "schema", self.schema, allowed)
            compile_schema(self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegexGrader:
    """1 for an answer in which the pattern is found, else 0."""

    type: ClassVar[str] = "regex"
    name: str
    pattern: str

    def __post_init__(self) -> None:
        require_text("pattern", self.pattern, MAX_PATTERN_CHARACTERS, "a regular expression")
        try:
            regex.compile(self.pattern)
        except regex.error as error:
            raise InvalidParameter("pattern", self.pattern, f"a regular expression ({error})") from error
