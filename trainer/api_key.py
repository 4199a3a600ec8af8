"""Where keys of endpoints are found: never in settings, which are written to disk."""

import os
from collections.abc import Mapping
from pathlib import Path

from proxy_model.errors import InvalidParameter


def read_api_key(variable: str, file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """What `file` holds, else the environment's `variable`; None where there is neither.

    Raises `InvalidParameter` for a file that cannot be read.
    """
    if file is None:
        return environment.get(variable) or None
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError as error:
        raise InvalidParameter("key_file", str(file), "a file that can be read") from error


def bearer(key: str | None) -> dict[str, str]:
    """The header that carries a key; none without one."""
    return {} if key is None else {"authorization": f"Bearer {key}"}
