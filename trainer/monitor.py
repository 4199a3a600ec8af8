"""Alarms on a run's history: what reward and loss alone do not show (arXiv:2307.04964, figure 4)."""

import math
from collections.abc import Mapping, Sequence

Row = Mapping[str, float]

WINDOW = 5
"""Iterations on each side of a comparison."""

MAX_NLL_RATIO = 1.35
"""Perplexity's logarithm may grow to this multiple of version 0's before the answers count as adrift."""


def warnings(history: Sequence[Row], window: int = WINDOW) -> list[str]:
    """What is wrong with the last `window` rows, compared with the first; nothing before 2 * `window` rows."""
    if len(history) < 2 * window:
        return []
    first, last = history[:window], history[-window:]
    found = []
    if _is_collapsing(first, last):
        found.append("pattern collapse: reward, length and KL are up while perplexity is down")
    if _mean(last, "reward/raw_mean") > _mean(first, "reward/raw_mean") and _is_adrift(first, last):
        found.append("drift: reward is up, but the answers' NLL under the LLM is far above version 0's")
    return found


def _is_collapsing(first: Sequence[Row], last: Sequence[Row]) -> bool:
    return (
        _moved(first, last, "reward/raw_mean") > 2
        and _moved(first, last, "answer/length") > 2
        and _moved(first, last, "answer/kl_to_prior") > 2
        and _moved(first, last, "answer/nll") < -2
    )


def _is_adrift(first: Sequence[Row], last: Sequence[Row]) -> bool:
    return _mean(last, "answer/nll") > MAX_NLL_RATIO * _mean(first, "answer/nll")


def _moved(first: Sequence[Row], last: Sequence[Row], name: str) -> float:
    """Distance of the two means in standard errors of their difference."""
    error = math.sqrt(_variance(first, name) / len(first) + _variance(last, name) / len(last))
    return (_mean(last, name) - _mean(first, name)) / max(error, 1e-9)


def _mean(rows: Sequence[Row], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def _variance(rows: Sequence[Row], name: str) -> float:
    mean = _mean(rows, name)
    return sum((row[name] - mean) ** 2 for row in rows) / max(len(rows) - 1, 1)
