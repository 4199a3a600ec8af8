"""The report's table, cut into questions, and the tables of the paper that have a counterpart here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.evaluation.groups import Series, origin_of_version
from trainer.evaluation.origin import Origin
from trainer.evaluation.report import PAIRWISE, EvaluationReport, Line, share_text
from trainer.evaluation.rows import SystemRow
from trainer.evaluation.scoring import TRAINING_REWARD

_COST = (
    "LLM passes a token",
    "tokens a second",
    "ms to the first token, p50",
    "ms a token, p50",
    "ms a token, p95",
    "trained parameters",
    "prompts seen",
    "training minutes",
    "training memory, MiB",
)
_DECISIONS = ("answers changed", "accept rate", "rejections a token", "forced share")

PAPER_TABLE_1 = (
    ("Proxy-RLHF", "0.03 B", "0.5 Gb", "63.24%"),
    ("RLHF (PPO on the whole LLM)", "13.35 B", "198.87 Gb", "61.24%"),
    ("DPO", "6.74 B", "100.41 Gb", "42.65%"),
)
"""arXiv:2403.04283, table 1 and figure 2b: parameters, memory, wins against SFT by GPT-4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table with one row a system."""

    title: str
    note: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    """The first cell of a row names it."""


def grids(report: EvaluationReport, rows: Sequence[SystemRow]) -> list[Grid]:
    """All numbers of `rows`: one grid a reward model, then style, decisions and cost."""
    lines = report.lines()
    found = []
    for label in rows[0].scores:
        mine = [(name.removeprefix(f"{label}: "), show) for name, show in lines if name.startswith(f"{label}: ")]
        is_training = label == TRAINING_REWARD
        title = "By the training reward" if is_training else f"By the {label.replace(' ', ' of ', 1)}"
        found.append(_grid(title, "trained the proxies" if is_training else "did not train the proxies", mine, rows))
    for label in dict.fromkeys(name.partition(": ")[0] for name, _ in lines if name.startswith(f"{PAIRWISE} ")):
        mine = [(name.removeprefix(f"{label}: "), show) for name, show in lines if name.startswith(f"{label}: ")]
        found.append(
            _grid(f"By the {label.replace(' ', ' judge ', 1)}", "shown both answers, in both orders", mine, rows)
        )
    plain = [line for line in lines if ": " not in line[0]]
    style = [line for line in plain if line[0] not in _COST + _DECISIONS]
    found.append(_grid("What the answers look like", "", style, rows))
    found.append(_grid("What the proxies decided", "", _named(plain, _DECISIONS), rows))
    found.append(_grid("What it costs", "milliseconds with the whole batch running", _named(plain, _COST), rows))
    return [grid for grid in found if len(grid.head) > 1]


def data_efficiency(series: Sequence[Series], labels: Sequence[str]) -> Grid | None:
    """Table 2: what the versions of each run achieve after how many prompts."""
    body = []
    for run in series:
        for row in run.rows:
            origin = origin_of_version(row)
            if origin is not None:
                rates = (share_text(row.scores[label].win_rate) for label in labels)
                body.append((f"{run.name}", f"{origin.prompts_seen:,}", *rates))
    if not body:
        return None
    head = ("run", "prompts seen", *(f"wins, {label}" for label in labels))
    return Grid(title="Data efficiency", note="each version on the same prompts", head=head, body=tuple(body))


def parameters(rows: Sequence[SystemRow], num_llm_parameters: int) -> Grid | None:
    """Table 1: what is trained, in how much memory and time."""
    body = [_parameters(row, row.origins[0], num_llm_parameters) for row in rows if row.origins]
    if not body:
        return None
    head = (
        "system",
        "trained parameters",
        "of the LLM's",
        "weights and Adam, MB",
        "process, MiB",
        "minutes",
        "prompts",
    )
    note = "weights and Adam: 16 bytes a parameter; process: with the frozen LLM and the reward model, as logged"
    return Grid(title="Parameters and memory", note=note, head=head, body=tuple(body))


def _parameters(row: SystemRow, origin: Origin, num_llm_parameters: int) -> tuple[str, ...]:
    return (
        row.system,
        f"{origin.num_parameters:,}",
        f"{origin.num_parameters / num_llm_parameters:.2%}",
        f"{16 * origin.num_parameters / 1e6:.1f}",
        _known(origin.memory_mib, ",.0f"),
        _known(origin.minutes, ".1f"),
        _known(origin.prompts_seen, ",.0f"),
    )


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _named(lines: Sequence[Line], names: Sequence[str]) -> list[Line]:
    return [line for line in lines if line[0] in names]


def _grid(
    title: str, note: str, lines: Sequence[tuple[str, Callable[[SystemRow], str]]], rows: Sequence[SystemRow]
) -> Grid:
    body = tuple((row.system, *(show(row) for _, show in lines)) for row in rows)
    return Grid(title=title, note=note, head=("system", *(name for name, _ in lines)), body=body)
