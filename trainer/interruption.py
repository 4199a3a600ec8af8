"""How whoever started a run may hold it up, or take it back, in the middle of an iteration."""

from collections.abc import Callable
from dataclasses import dataclass


class Interrupted(Exception):
    """Whoever started the run does not want its iteration any more: what is not on disk of it is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """Asked again and again by whatever takes long."""

    must_abort: Callable[[], bool] = lambda: False
    """Whether the iteration under way is to be dropped."""

    rest: Callable[[], None] = lambda: None
    """Called between two pieces of computing; it may take its time."""

    def leave_if_due(self) -> None:
        """Between two pieces of computing: rest, and raise `Interrupted` once the run must be aborted."""
        self.rest()
        self.leave_if_aborted()

    def leave_if_aborted(self) -> None:
        """While others compute: raise `Interrupted` once the run must be aborted."""
        if self.must_abort():
            raise Interrupted
