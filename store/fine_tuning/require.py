"""Checks of single values."""

from proxy_model.errors import InvalidParameter


def require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    """Raises `InvalidParameter` unless `is_allowed`."""
    if not is_allowed:
        raise InvalidParameter(name, value, allowed)


def require_text(name: str, value: object, max_characters: int, what: str) -> None:
    """Raises `InvalidParameter` unless `value` is a text that is neither blank nor too long; `what` says of what."""
    is_text = isinstance(value, str) and 0 < len(value) <= max_characters and not value.isspace()
    require(is_text, name, value, f"{what} of at most {max_characters} characters")
