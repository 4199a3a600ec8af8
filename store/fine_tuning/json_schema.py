"""JSON schemas that answers are held against; none makes anybody fetch anything."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from proxy_model.errors import InvalidParameter

if TYPE_CHECKING:
    from jsonschema_rs import Validator


def compile_schema(schema: Mapping[str, Any] | None) -> "Validator":
    """None: any JSON will do. Raises `InvalidParameter` for a schema that is none, or parts of which lie elsewhere."""
    from jsonschema_rs import validator_for

    try:
        return validator_for(True if schema is None else dict(schema), retriever=_refuse)
    except ValueError as error:
        raise InvalidParameter("schema", schema, f"a JSON schema ({str(error).splitlines()[0]})") from error


def _refuse(address: str) -> NoReturn:
    raise ValueError(f"{address} is not allowed")
