"""What pydantic found wrong with a request, in OpenAI's words: message, `param` and `code`."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from server.errors import ApiError, invalid

_MAX_SHOWN = 64
"""Characters of a refused value that its refusal repeats."""

_TYPES = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "int_parsing": "integer",
    "float_type": "decimal",
    "bool_type": "boolean",
    "bool_parsing": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}
"""pydantic's errors about types, and which type it wanted, in OpenAI's words."""

_SIGNS = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}
_CHOICES = ("literal_error", "union_tag_invalid")
_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def refusal_of(errors: Sequence[ErrorDetails], content: Any) -> ApiError:
    """400 about the most telling of the `errors` in `content`."""
    error = _telling(errors, content)
    param = _param(error, content)
    if _is_about_type(error):
        wanted = _wanted(found for found in errors if _param(found, content) == param)
        message = f"Invalid type for '{param}': expected {wanted}, but got {_name(_value(error))} instead."
        return invalid(message, param=param, code="invalid_type")
    if error["type"] in _SIGNS:
        return out_of_range(param, error["input"], _SIGNS[error["type"]], next(iter(error["ctx"].values())))
    message, code = _described(error, param)
    return invalid(message, param=param, code=code)


def out_of_range(param: str, value: object, sign: str, bound: int | float) -> ApiError:
    """400: `value` is not `sign` `bound`, whose kind of number is the field's; the value's does not matter."""
    number = "decimal" if isinstance(bound, float) else "integer"
    side, code = ("below minimum", "below_min_value") if ">" in sign else ("above maximum", "above_max_value")
    wanted = f"Expected a value {sign} {_short(bound)}, but got {_short(value)} instead."
    return invalid(f"Invalid '{param}': {number} {side} value. {wanted}", param=param, code=f"{number}_{code}")


def _telling(errors: Sequence[ErrorDetails], content: Any) -> ErrorDetails:
    """The first error; of a union, which fails once per member, the one of the member that nearly fitted."""
    place = errors[0]["loc"][:2]
    place = place if place[:1] == ("messages",) else place[:1]
    related = [error for error in errors if error["loc"][: len(place)] == place]
    deepest = max(related, key=lambda error: len(_param(error, content)))
    return next((error for error in related if not _is_about_type(error)), deepest)


def _is_about_type(error: ErrorDetails) -> bool:
    if error["type"] in _CHOICES:
        return type(_value(error)) is not (str if _choices(error)[0].startswith("'") else int)
    return error["type"] in _TYPES


def _described(error: ErrorDetails, param: str) -> tuple[str, str]:
    """Message and code of an error that is about neither a type nor a range."""
    kind, value, context = error["type"], _value(error), error.get("ctx", {})
    match kind:
        case "missing" | "union_tag_not_found":
            return f"Missing required parameter: '{param}'.", "missing_required_parameter"
        case "extra_forbidden":
            return f"Unknown parameter: '{param}'.", "unknown_parameter"
        case "literal_error" | "union_tag_invalid":
            supported = _listed(_choices(error), "and")
            return f"Invalid value: '{str(value)[:_MAX_SHOWN]}'. Supported values are: {supported}.", "invalid_value"
        case "string_pattern_mismatch":
            wanted = f"Expected a string that matches the pattern '{context['pattern']}'"
            return f"Invalid '{param}': string does not match pattern. {wanted}.", "invalid_value"
    if kind in ("too_short", "too_long", "string_too_short", "string_too_long"):
        return _of_wrong_length(error, param)
    message = f"Invalid value for '{param}': {error['msg'][:1].lower()}{error['msg'][1:]}."
    return message, "unsupported_value" if kind == "unsupported_part" else "invalid_value"


def _of_wrong_length(error: ErrorDetails, param: str) -> tuple[str, str]:
    """Nothing has a minimum of more than one here."""
    value, context = _value(error), error.get("ctx", {})
    kind = "string" if isinstance(value, str) else "object" if isinstance(value, dict) else "array"
    article = "a string" if kind == "string" else f"an {kind}"
    if "min_length" in context:
        wanted = f"Expected {article} with minimum length {context['min_length']}, but got an empty {kind} instead."
        return f"Invalid '{param}': empty {kind}. {wanted}", f"empty_{kind}"
    most = context["max_length"]
    if kind == "object":
        wanted = f"Expected an object with at most {most} properties, but got an object with {len(value)} properties"
        return f"Invalid '{param}': too many properties. {wanted} instead.", "object_above_max_properties"
    wanted = f"Expected {article} with maximum length {most}, but got {article} with length {len(value)} instead."
    return f"Invalid '{param}': {kind} too long. {wanted}", f"{kind}_above_max_length"


def _wanted(errors: Iterable[ErrorDetails]) -> str:
    """Every type that would have done: `a string`, `one of a string or array`."""
    names = list(dict.fromkeys(name for error in errors for name in _alternatives(error)))
    if len(names) == 1:
        return _with_article(names[0])
    return f"one of {_listed([_with_article(names[0]), *names[1:]], 'or')}"


def _alternatives(error: ErrorDetails) -> list[str]:
    if error["type"] in _CHOICES:
        return _choices(error)
    return [_TYPES[error["type"]]] if error["type"] in _TYPES else []


def _choices(error: ErrorDetails) -> list[str]:
    """The values that a field takes, texts in quotes."""
    context = error.get("ctx", {})
    return re.split(", | or ", str(context.get("expected_tags", context.get("expected"))))


def _listed(names: Sequence[str], word: str) -> str:
    """`a`, `a or b`, `a, b, or c`."""
    if len(names) < 3:
        return f" {word} ".join(names)
    return f"{', '.join(names[:-1])}, {word} {names[-1]}"


def _with_article(name: str) -> str:
    if name.startswith("'"):
        return name
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def _value(error: ErrorDetails) -> Any:
    """What was sent; of a union by tag, its tag."""
    if error["type"] == "union_tag_invalid":
        return error["input"].get(_tag_name(error))
    return error["input"]


def _tag_name(error: ErrorDetails) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _name(value: Any) -> str:
    return _NAMES.get(type(value), "null")


def _short(number: object) -> str:
    """2.0 as 2, and no more digits than anybody reads; numbers in a URL come as text."""
    return f"{number:.12g}" if isinstance(number, float) else str(number)[:_MAX_SHOWN]


def _param(error: ErrorDetails, content: Any) -> str:
    """`messages[0].content`: pydantic's location without the names of union members, which the content has not."""
    path, location, here = "", error["loc"], content
    for place, part in enumerate(location):
        is_last = place == len(location) - 1
        if isinstance(part, int):
            path += f"[{part}]"
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif isinstance(here, dict) and (part in here or (is_last and error["type"] == "missing")):
            path += f".{part}" if path else part
            here = here.get(part)
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path += "." + _tag_name(error)
    return path[:200]
