"""The form that an answer must have, as the engine follows it and as errors speak of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy_model.decoding.grammar import GrammarSpec, json_schema
from proxy_model.errors import BadGrammar
from server.errors import ApiError, invalid
from server.generation.strict_schema import strict_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A grammar and where it came from."""

    grammar: GrammarSpec
    field: str
    """The field that errors about it name."""

    title: str
    """What such an error begins with."""

    def refused(self, reason: str) -> ApiError:
        """400: it cannot be followed."""
        return _refused(self.title, reason, self.field)


def schema_form(schema: Mapping[str, Any], *, field: str, title: str, is_strict: bool) -> Form:
    """JSON by `schema`. Raises `ApiError` 400 where it is too large, or strict and not of the strict subset."""
    problem = strict_problem(schema) if is_strict else None
    if problem is not None:
        raise _refused(title, problem, field)
    try:
        return Form(grammar=json_schema(schema), field=field, title=title)
    except BadGrammar as error:
        raise _refused(title, error.reason, field) from error


def _refused(title: str, reason: str, field: str) -> ApiError:
    return invalid(f"{title}: {reason.rstrip('.')}.", param=field)
