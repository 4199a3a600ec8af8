"""Which rows of an evaluation belong together: a sweep over settings, the versions of a run, and what stands alone."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trainer.evaluation.origin import Origin
from trainer.evaluation.rows import SystemRow


@dataclass(frozen=True, slots=True)
class Series:
    """Rows that differ in one thing."""

    name: str
    rows: tuple[SystemRow, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """The rows of a report, sorted out."""

    headline: tuple[SystemRow, ...]
    """The base, every row of its own, of a sweep its first row and of a run's versions the last."""

    sweeps: tuple[Series, ...]
    """The same weights under several p_t or temperatures."""

    versions: tuple[Series, ...]
    """Several versions of one run, by the prompts that they had seen."""

    @classmethod
    def of(cls, rows: Sequence[SystemRow]) -> "Groups":
        """Sort `rows` out."""
        sweeps, versions = _sweeps(rows), _versions(rows)
        hidden = {row.system for series in sweeps for row in series.rows[1:]}
        hidden |= {row.system for series in versions for row in series.rows[:-1]}
        return cls(tuple(row for row in rows if row.system not in hidden), sweeps, versions)


def origin_of_version(row: SystemRow) -> Origin | None:
    """The one run that a row's proxy comes from, where that and its progress are known."""
    if len(row.origins) != 1 or row.origins[0].prompts_seen is None or row.origins[0].run is None:
        return None
    return row.origins[0]


def _sweeps(rows: Sequence[SystemRow]) -> tuple[Series, ...]:
    found: dict[Hashable, list[SystemRow]] = defaultdict(list)
    for row in rows:
        if row.policies:
            found[row.policies].append(row)
    return tuple(
        Series(group[0].system.partition(":")[0], tuple(group))
        for group in found.values()
        if len({(row.p_t, row.temperature) for row in group}) > 1
    )


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
