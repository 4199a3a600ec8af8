"""What an evaluation found: one row a system, as a table for the terminal, Markdown and JSON."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from rich.table import Table

from trainer.evaluation.origin import Origin
from trainer.evaluation.rows import PairwiseRow, ScoreRow, SystemRow
from trainer.evaluation.statistics import Interval

Line = tuple[str, Callable[[SystemRow], str]]
"""One number of the table: its name and how it is shown."""

PAIRWISE = "pairwise"
"""What the lines of a judge begin with that is shown both answers."""

CAPTION = (
    "gain: in deviations of the base's scores; brackets: 95 % intervals (gain: bootstrap over prompts; wins: Wilson, "
    "ties half; rows of several seeds: bootstrap over prompts and seeds); ±: deviation over the seeds"
)


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

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises `KeyError` or `TypeError` for anything else."""
        return cls(**{**found, "rows": tuple(_row(each) for each in found["rows"])})

    def table(self) -> Table:
        """For the terminal: systems are columns, so that it fits."""
        table = Table(title=self.title, caption=CAPTION)
        table.add_column("")
        for row in self.rows:
            table.add_column(row.system, justify="right", overflow="fold")
        for name, show in self.lines():
            table.add_row(name, *(show(row) for row in self.rows))
        return table

    def markdown(self) -> str:
        """The same as a Markdown table."""
        lines = [self.title + ".", "", "| |" + "".join(f" {row.system} |" for row in self.rows)]
        lines.append("|---|" + "---:|" * len(self.rows))
        lines += [f"| {name} |" + "".join(f" {show(row)} |" for row in self.rows) for name, show in self.lines()]
        return "\n".join([*lines, "", CAPTION, ""])

    @property
    def title(self) -> str:
        """What was asked of whom."""
        return f"{self.num_prompts} prompts of {self.prompts}, {self.model}, at most {self.max_tokens} tokens"

    def lines(self) -> list[Line]:
        """Every number of the table, those that no row has left out."""
        lines: list[Line] = []
        for label in self.rows[0].scores if self.rows else ():
            lines += _score_lines(label)
        for judge in dict.fromkeys(row.pairwise.judge for row in self.rows if row.pairwise is not None):
            lines += _pairwise_lines(judge)
        for source in self.rows[0].refusals if self.rows else ():
            lines.append(_refusal_line(source))
        lines += _PLAIN_LINES
        return [line for line in lines if any(line[1](row) != "-" for row in self.rows)]


def _score_lines(label: str) -> list[Line]:
    def unless_base(show: Callable[[ScoreRow], str]) -> Callable[[SystemRow], str]:
        return lambda row: "-" if row.kind == "base" else show(row.scores[label])

    return [
        (f"{label}: mean", lambda row: f"{row.scores[label].mean:.3f}"),
        (f"{label}: gain", unless_base(lambda score: gain_text(score.gain))),
        (f"{label}: wins", unless_base(lambda score: share_text(score.win_rate))),
        (f"{label}: win/tie/lose", unless_base(lambda score: f"{score.wins}/{score.ties}/{score.losses}")),
        (f"{label}: wins by seed", unless_base(_by_seed)),
    ]


def _by_seed(row: ScoreRow | PairwiseRow) -> str:
    return "-" if len(row.win_rate_by_seed) < 2 else " ".join(f"{rate:.1%}" for rate in row.win_rate_by_seed)


def _pairwise_lines(judge: str) -> list[Line]:
    def of(show: Callable[[PairwiseRow], str]) -> Callable[[SystemRow], str]:
        return lambda row: "-" if row.pairwise is None or row.pairwise.judge != judge else show(row.pairwise)

    label = f"{PAIRWISE} {judge}"
    return [
        (f"{label}: wins", of(lambda found: share_text(found.win_rate))),
        (f"{label}: win/tie/lose", of(lambda found: f"{found.wins}/{found.ties}/{found.losses}")),
        (f"{label}: wins by seed", of(_by_seed)),
        (
            f"{label}: same in both orders",
            of(lambda found: "-" if found.agreement is None else f"{found.agreement:.1%}"),
        ),
        (f"{label}: no verdict", of(lambda found: f"{found.num_unclear}")),
    ]


def _refusal_line(source: str) -> Line:
    def show(row: SystemRow) -> str:
        return share_text(row.refusals[source]) if source in row.refusals else "-"

    return f"refusals, {source}" if source else "refusals", show


def share_text(bounds: Interval) -> str:
    """`65.0% [59.4, 70.2]`."""
    return f"{bounds.estimate:.1%} [{100 * bounds.low:.1f}, {100 * bounds.high:.1f}]"


def gain_text(bounds: Interval) -> str:
    """`+0.27 [+0.18, +0.36]`."""
    return f"{bounds.estimate:+.2f} [{bounds.low:+.2f}, {bounds.high:+.2f}]"


def _plain(title: str, name: str, form: str) -> Line:
    def show(row: SystemRow) -> str:
        value = getattr(row, name)
        if value is None:
            return "-"
        spread = f" ±{row.spread[name]:{form}}" if name in row.spread else ""
        return f"{value:{form}}{spread}"

    return title, show


def _trained(title: str, form: str, read: Callable[[Origin], float | None]) -> Line:
    def show(row: SystemRow) -> str:
        values = [value for value in map(read, row.origins) if value is not None]
        return f"{sum(values) / len(values):{form}}" if values else "-"

    return title, show


_PLAIN_LINES: list[Line] = [
    _plain("NLL under the LLM", "nll", ".3f"),
    _plain("tokens an answer", "length", ".1f"),
    _plain("rep-4", "rep_4", ".3f"),
    _plain("distinct-1", "distinct_1", ".3f"),
    _plain("distinct-2", "distinct_2", ".3f"),
    _plain("ended by itself", "eos_rate", ".1%"),
    _plain("garbled words", "garble_rate", ".2%"),
    _plain("answers changed", "changed_rate", ".1%"),
    _plain("accept rate", "accept_rate", ".3f"),
    _plain("rejections a token", "rejections_per_token", ".3f"),
    _plain("forced share", "forced_share", ".3f"),
    _plain("LLM passes a token", "passes_per_token", ".2f"),
    _plain("tokens a second", "tokens_per_second", ".0f"),
    _plain("ms to the first token, p50", "first_token_p50", ".0f"),
    _plain("ms a token, p50", "gap_p50", ".1f"),
    _plain("ms a token, p95", "gap_p95", ".1f"),
    _trained("trained parameters", ",.0f", lambda origin: origin.num_parameters),
    _trained("prompts seen", ",.0f", lambda origin: origin.prompts_seen),
    _trained("training minutes", ".1f", lambda origin: origin.minutes),
    _trained("training memory, MiB", ",.0f", lambda origin: origin.memory_mib),
]


def _row(found: Mapping[str, Any]) -> SystemRow:
    pairwise = found.get("pairwise")
    refusals = {source: Interval(**each) for source, each in found.get("refusals", {}).items()}
    scores = {label: _score(each) for label, each in found["scores"].items()}
    origins = tuple(Origin(**each) for each in found["origins"])
    tuples = {name: tuple(found[name]) for name in ("policies", "answers")}
    return SystemRow(
        **{
            **found,
            **tuples,
            "scores": scores,
            "origins": origins,
            "pairwise": pairwise and _pairwise(pairwise),
            "refusals": refusals,
        }
    )


def _pairwise(found: Mapping[str, Any]) -> PairwiseRow:
    changes = {"win_rate": Interval(**found["win_rate"]), "win_rate_by_seed": tuple(found["win_rate_by_seed"])}
    return PairwiseRow(**{**found, **changes})


def _score(found: Mapping[str, Any]) -> ScoreRow:
    intervals = {name: Interval(**found[name]) for name in ("gain", "win_rate")}
    tuples = {name: tuple(found[name]) for name in ("gain_by_seed", "win_rate_by_seed")}
    return ScoreRow(**{**found, **intervals, **tuples})
