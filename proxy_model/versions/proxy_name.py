"""What a proxy may be called."""

import re

RESERVED_NAMES = frozenset({"base"})
"""`<llm>:base` is the LLM alone."""

ALLOWED = f"1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first, not {sorted(RESERVED_NAMES)}"
"""For an error that refuses a name."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def is_proxy_name(name: str) -> bool:
    """Whether a proxy may be called so: a plain file name in lower case that is not reserved."""
    return _NAME.fullmatch(name) is not None and name not in RESERVED_NAMES
