"""Alarms on a run's history: what reward and loss alone do not show (arXiv:2307.04964, figure 4)."""

import math
from collections.abc import Mapping, Sequence

from trainer.metrics import TERM

Row = Mapping[str, float]

WINDOW = 5
"""Iterations on each side of a comparison."""

MAX_NLL_RATIO = 1.35
"""Perplexity's logarithm may grow to this multiple of version 0's before the answers count as adrift."""

MIN_PROMPTS = 10
"""Fewer prompts whose answers have one and the same score may be chance."""

MAX_RELATIVE_SD = 1e-6
"""Equal scores deviate from their mean by rounding, not more."""


def warnings(history: Sequence[Row], window: int = WINDOW) -> list[str]:
    """What is wrong with the last `window` rows, by themselves and, from 2 * `window` rows on, beside the first."""
    last = history[-window:]
    found = []
    if _num_prompts(history, window) >= MIN_PROMPTS and _is_constant(last):
        found.append("no signal: all answers had the same score")
    if len(history) < 2 * window:
        return found
    first = history[:window]
    if _is_collapsing(first, last):
        found.append("pattern collapse: reward, length and KL are up while perplexity is down")
    if _mean(last, "reward/raw_mean") > _mean(first, "reward/raw_mean") and _is_adrift(first, last):
        found.append("drift: reward is up, but the answers' NLL under the LLM is far above version 0's")
    return found


def warnings_until_now(history: Sequence[Row], window: int = WINDOW) -> set[str]:
    """What `warnings` has ever said of a run."""
    ends = range(1, len(history) + 1)
    return {each for end in ends for each in warnings(_seen_at(history, end, window), window)}


def _seen_at(history: Sequence[Row], end: int, window: int) -> Sequence[Row]:
    """Of the first `end` rows those that `warnings` looks at."""
    return history[:end] if end <= 2 * window + 1 else [*history[:window], *history[end - window - 1 : end]]


def _num_prompts(history: Sequence[Row], window: int) -> float:
    """Answered in the last `window` rows; 0 where nobody counted, or the answers were given with their scores."""
    if not history or not any(name.startswith(TERM) for name in history[-1]):
        return 0
    before = history[-window - 1]["progress/prompts"] if len(history) > window else 0
    return history[-1]["progress/prompts"] - before


def _is_constant(rows: Sequence[Row]) -> bool:
    """Whether all answers were scored alike, within an iteration and from one to the next."""
    means = [row["reward/raw_mean"] for row in rows]
    scatter = max(max(means) - min(means), *(row["reward/raw_sd"] for row in rows))
    return scatter <= MAX_RELATIVE_SD * max(abs(mean) for mean in means)


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
