"""Which values the numbers of a request and of SKAM may take: the one place that says it."""

from dataclasses import dataclass

from proxy_model.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, both allowed unless `is_open` leaves out `low`."""

    low: int | float
    high: int | float
    is_open: bool = False

    def check(self, name: str, value: int | float | None) -> None:
        """Raise `InvalidParameter` naming `name`; None is absent and always fine."""
        if value is not None and value not in self:
            raise InvalidParameter(name, value, str(self))

    def __contains__(self, value: int | float) -> bool:
        return (self.low < value if self.is_open else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"in {'(' if self.is_open else '['}{self.low}, {self.high}]"


TEMPERATURE = Range(0.0, 2.0)
TOP_P = Range(0.0, 1.0, is_open=True)
MIN_P = Range(0.0, 1.0)
TOP_K = Range(1, 1 << 31)
SEED = Range(-(1 << 63), (1 << 63) - 1)
MAX_TOKENS = Range(0, 1 << 31)
TOP_LOGPROBS = Range(0, 20)
PENALTY = Range(-2.0, 2.0)
"""Of presence and of frequency."""

REPETITION_PENALTY = Range(0.0, 10.0, is_open=True)
LOGIT_BIAS = Range(-100.0, 100.0)
P_T = Range(0.0, 1.0)
SKAM_TEMPERATURE = Range(0.0, 100.0, is_open=True)
TARGET_RETURN = Range(-4.0, 4.0)
"""In standard deviations of the reward that the proxy was trained on."""
