"""The core's ranges as pydantic takes them, so that a range exists once."""

from typing import Any

from pydantic import Field

from proxy_model.ranges import Range


def within(allowed: Range) -> Any:
    """The constraint of a number that has to lie in `allowed`."""
    if allowed.is_open:
        return Field(gt=allowed.low, le=allowed.high)
    return Field(ge=allowed.low, le=allowed.high)
