"""What an evaluation found: one row a system, as a table for the terminal, Markdown and JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from trainer.evaluation.statistics import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One reward model's opinion of one system."""

    mean: float
    gain: Interval
    """Mean of score - base's score, in deviations of the base's scores, with a paired bootstrap interval."""

    win_rate: Interval
    """Prompts whose answer scores above the base's, ties half, with Wilson's interval."""

    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRow:
    """One system on all prompts. Rates are shares in [0, 1]."""

    system: str
    scores: dict[str, ScoreRow]
    """By the reward model's label."""

    nll: float
    """-mean log p(token) under the LLM alone, nats."""

    length: float
    """Mean tokens of an answer, its end token included."""

    rep_4: float
    """Mean over answers of 1 - distinct token 4-grams / token 4-grams."""

    distinct_2: float
    """Different token bigrams / token bigrams, over all answers."""

    eos_rate: float
    """Answers that ended by themselves."""

    garble_rate: float
    """Words that are in no dictionary, see `text_metrics.Dictionary`."""

    changed_rate: float
    """Answers that differ from the base's."""

    accept_rate: float | None
    """Accepted free decisions / free decisions; None where nothing was free."""

    rejections_per_token: float
    forced_share: float | None
    """Positions whose token SKAM forced / positions; None for the LLM alone."""

    passes_per_token: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """All rows, on the same prompts."""

    num_prompts: int
    max_tokens: int
    seed: int
    model: str
    prompts: str
    """Name of the file."""

    num_too_long: int
    """Prompts of the file that were left out for their length."""

    rows: tuple[SystemRow, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    def table(self) -> Table:
        """For the terminal: systems are columns, so that it fits."""
        table = Table(title=self._title(), caption=self._caption())
        table.add_column("")
        for row in self.rows:
            table.add_column(row.system, justify="right", overflow="fold")
        for name, show in self._lines():
            table.add_row(name, *(show(row) for row in self.rows))
        return table

    def markdown(self) -> str:
        """The same as a Markdown table."""
        lines = [self._title() + ".", "", "| |" + "".join(f" {row.system} |" for row in self.rows)]
        lines.append("|---|" + "---:|" * len(self.rows))
        lines += [f"| {name} |" + "".join(f" {show(row)} |" for row in self.rows) for name, show in self._lines()]
        return "\n".join([*lines, "", self._caption(), ""])

    def _title(self) -> str:
        return f"{self.num_prompts} prompts of {self.prompts}, {self.model}, greedy, at most {self.max_tokens} tokens"

    def _caption(self) -> str:
        return "gain: in deviations of the base's scores; brackets: 95 % intervals (bootstrap; Wilson, ties half)"

    def _lines(self) -> list[tuple[str, Callable[[SystemRow], str]]]:
        lines: list[tuple[str, Callable[[SystemRow], str]]] = []
        for label in self.rows[0].scores if self.rows else ():
            lines += _score_lines(label)
        return lines + _PLAIN_LINES


def _score_lines(label: str) -> list[tuple[str, Callable[[SystemRow], str]]]:
    def wins(row: SystemRow) -> str:
        if row.system == "base":
            return "-"
        bounds = row.scores[label].win_rate
        return f"{bounds.estimate:.1%} [{100 * bounds.low:.1f}, {100 * bounds.high:.1f}]"

    def gain(row: SystemRow) -> str:
        bounds = row.scores[label].gain
        return "-" if row.system == "base" else f"{bounds.estimate:+.2f} [{bounds.low:+.2f}, {bounds.high:+.2f}]"

    return [
        (f"{label}: mean", lambda row: f"{row.scores[label].mean:.3f}"),
        (f"{label}: gain", gain),
        (f"{label}: wins", wins),
    ]


_PLAIN_LINES: list[tuple[str, Callable[[SystemRow], str]]] = [
    ("NLL under the LLM", lambda row: f"{row.nll:.3f}"),
    ("tokens an answer", lambda row: f"{row.length:.1f}"),
    ("rep-4", lambda row: f"{row.rep_4:.3f}"),
    ("distinct-2", lambda row: f"{row.distinct_2:.3f}"),
    ("ended by itself", lambda row: f"{row.eos_rate:.1%}"),
    ("garbled words", lambda row: f"{row.garble_rate:.2%}"),
    ("answers changed", lambda row: f"{row.changed_rate:.1%}"),
    ("accept rate", lambda row: "-" if row.accept_rate is None else f"{row.accept_rate:.3f}"),
    ("rejections a token", lambda row: f"{row.rejections_per_token:.3f}"),
    ("forced share", lambda row: "-" if row.forced_share is None else f"{row.forced_share:.3f}"),
    ("LLM passes a token", lambda row: f"{row.passes_per_token:.2f}"),
    ("tokens a second", lambda row: f"{row.tokens_per_second:.0f}"),
]
