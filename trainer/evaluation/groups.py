"""Which rows of an evaluation belong together: a sweep over settings, the versions of a run, and what stands alone."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trainer.evaluation.origin import Origin
from trainer.evaluation.rows import SystemRow

SETTINGS = ("p_t", "temperature", "top_p", "decision", "target_return")
"""What the same weights can be served under, as `SystemRow` calls it."""

Line = tuple[SystemRow, ...]
"""Rows that differ in one setting only, by it."""


@dataclass(frozen=True, slots=True)
class Series:
    """The versions of one run."""

    name: str
    rows: tuple[SystemRow, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The same weights under several settings; a row may be in a line of either kind."""

    name: str
    p_t: tuple[Line, ...]
    temperature: tuple[Line, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.p_t + self.temperature


@dataclass(frozen=True, slots=True)
class Groups:
    """The rows of a report, sorted out."""

    headline: tuple[SystemRow, ...]
    """The base, every row of its own, of a sweep its first row and of a run's versions the last."""

    sweeps: tuple[Sweep, ...]
    """Several p_t or temperatures of the same weights, all else equal."""

    versions: tuple[Series, ...]
    """Several versions of one run, by the prompts that they had seen."""

    @classmethod
    def of(cls, rows: Sequence[SystemRow]) -> "Groups":
        """Sort `rows` out."""
        sweeps, versions = _sweeps(rows), _versions(rows)
        hidden: set[str] = set()
        for sweep in sweeps:
            swept = {row.system for line in sweep.lines for row in line}
            hidden |= swept - {next(row.system for row in rows if row.system in swept)}
        hidden |= {row.system for series in versions for row in series.rows[:-1]}
        return cls(tuple(row for row in rows if row.system not in hidden), sweeps, versions)


def origin_of_version(row: SystemRow) -> Origin | None:
    """The one run that a row's proxy comes from, where that and its progress are known."""
    if len(row.origins) != 1 or row.origins[0].prompts_seen is None or row.origins[0].run is None:
        return None
    return row.origins[0]


def _sweeps(rows: Sequence[SystemRow]) -> tuple[Sweep, ...]:
    found: dict[Hashable, list[SystemRow]] = defaultdict(list)
    for row in rows:
        if row.policies:
            found[row.policies].append(row)
    sweeps = (
        Sweep(group[0].system.partition(":")[0], _lines(group, "p_t"), _lines(group, "temperature"))
        for group in found.values()
    )
    return tuple(sweep for sweep in sweeps if sweep.lines)


def _lines(rows: Sequence[SystemRow], across: str) -> tuple[Line, ...]:
    """Those of `rows`, all with the same weights, that differ in nothing but the setting `across`."""
    found: dict[Hashable, dict[float, SystemRow]] = defaultdict(dict)
    for row in rows:
        others = tuple(getattr(row, name) for name in SETTINGS if name != across)
        found[others].setdefault(getattr(row, across), row)
    return tuple(tuple(line[value] for value in sorted(line)) for line in found.values() if len(line) > 1)


def _versions(rows: Sequence[SystemRow]) -> tuple[Series, ...]:
    found: dict[Hashable, dict[int, SystemRow]] = defaultdict(dict)
    for row in rows:
        origin = origin_of_version(row)
        if origin is not None and origin.prompts_seen is not None:
            found[origin.run, origin.seed].setdefault(origin.prompts_seen, row)
    return tuple(
        Series(_run_name(group), tuple(group[seen] for seen in sorted(group)))
        for group in found.values()
        if len(group) > 1
    )


def _run_name(group: dict[int, SystemRow]) -> str:
    """The rows' common label without their versions."""
    return next(iter(group.values())).system.partition("@")[0]
