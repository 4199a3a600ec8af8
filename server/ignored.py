"""Fields that are understood but not implemented: named in a header, or refused under `--strict`."""

import re

from server.errors import invalid
from server.schemas.generation import NO_OPS, GenerationBody

HEADER = "x-ignored-fields"

_MAX_NAMED = 32
_OF_THE_PROXY = ("p_t", "temperature", "top_p", "decision")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def ignored_fields(body: GenerationBody, *, has_proxy: bool) -> list[str]:
    """Names of the fields that ask for something which will not happen."""
    asked = body.model_extra or {}
    ignored = [name for name, value in asked.items() if not _is_no_op(name, value)]
    if (options := body.stream_options) is not None:
        unknown = [name for name, value in (options.model_extra or {}).items() if value is not None]
        ignored += [f"stream_options.{name}" for name in unknown]
        ignored += ["stream_options.include_obfuscation"] if options.include_obfuscation else []
        if options.continuous_usage_stats and not options.include_usage:
            ignored.append("stream_options.continuous_usage_stats")
    if body.proxy is not None and not has_proxy:
        ignored += [f"proxy.{name}" for name in _OF_THE_PROXY if getattr(body.proxy, name) is not None]
    return sorted(name if _SAFE_NAME.fullmatch(name) else "?" for name in ignored[:_MAX_NAMED])


def require_none(ignored: list[str]) -> None:
    """Raise 400 naming the first of `ignored`."""
    if ignored:
        raise invalid(f"Unsupported parameter: '{ignored[0]}'.", param=ignored[0], code="unsupported_parameter")


def _is_no_op(name: str, value: object) -> bool:
    return any(value == no_op and type(value) is type(no_op) for no_op in NO_OPS.get(name, (None,)))
