"""`report.html`: everything that an evaluation found, in one file that asks nobody for anything.

A section whose data are not there is left out. Beside the page lie its pictures as PNG and its numbers as JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from proxy_model import disk
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.groups import Groups
from trainer.evaluation.origin import is_offline
from trainer.evaluation.page import outcomes, training
from trainer.evaluation.page.chart import Chart
from trainer.evaluation.page.dialogues import Dialogue, dialogues
from trainer.evaluation.page.sweeps import sweep_charts
from trainer.evaluation.page.tables import PAPER_TABLE_1, Grid, data_efficiency, grids, parameters
from trainer.evaluation.report import CAPTION, share_text
from trainer.evaluation.rows import SystemRow
from trainer.evaluation.scoring import TRAINING_REWARD
from trainer.monitor import warnings
from trainer.run_log import METRICS_FILE, read_rows

Item = TypeVar("Item")

PAGE, NUMBERS, PICTURES = "report.html", "report.json", "pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One heading of the page; what it lacks is not shown."""

    id: str
    title: str
    charts: tuple[Chart, ...] = ()
    grids: tuple[Grid, ...] = ()
    more: tuple[Grid, ...] = ()
    """Folded away."""

    dialogues: tuple[Dialogue, ...] = ()
    notes: tuple[str, ...] = ()


def write_page(folder: Path, evaluation: Evaluation, num_dialogues: int) -> Path:
    """Write page, pictures and numbers into `folder`; returns the page's path."""
    sections = page_sections(evaluation, num_dialogues)
    pictures = folder / PICTURES
    disk.make_folder(pictures)
    for chart in (chart for section in sections for chart in section.charts):
        chart.write_png(pictures)
    (folder / NUMBERS).write_text(json.dumps(_numbers(evaluation, sections), indent=2) + "\n", encoding="utf-8")
    page = folder / PAGE
    page.write_text(render(evaluation, sections), encoding="utf-8")
    return page


def page_sections(evaluation: Evaluation, num_dialogues: int) -> list[Section]:
    """The sections that there are data for, in order."""
    report, groups = evaluation.report, Groups.of(evaluation.report.rows)
    labels = list(report.rows[0].scores)
    judges = [label for label in labels if label != TRAINING_REWARD] or labels
    logs = _logs(report.rows)
    llm_parameters = evaluation.scoring.llm.num_parameters
    names = [row.system for row in groups.headline]
    sections = [
        Section(id="wins", title="Who wins", charts=_some(outcomes.win_rates(groups.headline, labels))),
        Section(
            id="cost", title="At what cost", charts=_some(outcomes.cost(groups.headline, judges[0]) if judges else None)
        ),
        Section(
            id="table",
            title="The table",
            grids=tuple(grids(report, groups.headline)),
            more=tuple(grids(report, report.rows)) if len(names) < len(report.rows) else (),
            notes=(CAPTION,),
        ),
        Section(
            id="scores",
            title="How the scores spread",
            charts=_some(outcomes.histograms(groups.headline, _scores(evaluation, labels))),
        ),
        Section(id="sweeps", title="p_t and temperature", charts=sweep_charts(groups.sweeps, labels)),
        Section(
            id="versions",
            title="Over training",
            charts=(training.versions(groups.versions, labels),) if groups.versions and labels else (),
            grids=_some(data_efficiency(groups.versions, labels)),
        ),
        Section(
            id="monitors",
            title="Reward, KL and collapse",
            charts=(training.frontier(logs), training.monitors(logs)) if logs else (),
            notes=tuple(f"{name}: {found}" for name, log in logs.items() for found in warnings(log)),
        ),
        Section(id="parameters", title="What is trained", grids=_trained(groups.headline, llm_parameters)),
        Section(
            id="answers",
            title="Answers side by side",
            dialogues=tuple(dialogues(evaluation.answered, names, evaluation.scoring, num_dialogues)),
        ),
    ]
    return [each for each in sections if each.charts or each.grids or each.dialogues]


def render(evaluation: Evaluation, sections: Sequence[Section]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("trainer.evaluation.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources.files("trainer.evaluation.page").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(
        report=evaluation.report,
        sections=sections,
        tiles=_tiles(evaluation),
        style=Markup(style),
        svg=lambda chart: Markup(chart.svg()),
    )


def _tiles(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """The three or four numbers that the page begins with, of the first proxy: value, what it is, its interval."""
    row = next((row for row in evaluation.report.rows if row.kind == "proxy"), None)
    if row is None:
        return []
    tiles = []
    for label, score in row.scores.items():
        bounds = score.win_rate
        tiles.append(
            (
                f"{bounds.estimate:.1%}",
                f"of the prompts won by {row.system}, {label}",
                f"95 % interval {100 * bounds.low:.1f} to {100 * bounds.high:.1f} %",
            )
        )
    tiles.append((f"{row.passes_per_token:.2f}", "LLM passes for each token", "1.00 is the LLM alone"))
    return tiles


def _scores(evaluation: Evaluation, labels: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    scoring = evaluation.scoring
    return {
        label: {
            row.label: torch.stack([scoring.scores(label, answers) for answers in row.members])
            for row in evaluation.answered
        }
        for label in labels
    }


def _logs(rows: Sequence[SystemRow]) -> dict[str, training.Log]:
    """The metrics of every run that a row's proxies come from, by the row's label and the seed.

    Those of offline runs describe the recorded answers that they learn from, the same whatever is learnt: left out.
    """
    found: dict[str, training.Log] = {}
    names: dict[str, str] = {}
    for row in rows:
        for origin in row.origins:
            if origin.run_folder is None or origin.run_folder in names or is_offline(Path(origin.run_folder)):
                continue
            log = read_rows(Path(origin.run_folder) / METRICS_FILE)
            if log:
                name = f"{row.system.partition('@')[0]}, seed {origin.seed}"
                names[origin.run_folder] = name
                found[name if name not in found else origin.run_folder] = log
    return found


def _trained(rows: Sequence[SystemRow], num_llm_parameters: int) -> tuple[Grid, ...]:
    mine = parameters(rows, num_llm_parameters)
    if mine is None:
        return ()
    paper = Grid(
        title="The paper's own",
        note="arXiv:2403.04283, table 1 and figure 2b: another LLM, reward and judge; for orientation only",
        head=("system", "trained parameters", "memory", "wins by GPT-4"),
        body=PAPER_TABLE_1,
    )
    return (mine, paper)


def _numbers(evaluation: Evaluation, sections: Sequence[Section]) -> Mapping[str, object]:
    """What the page shows, without its pictures."""
    return {
        "evaluation": evaluation.report.to_json(),
        "summary": [
            {"system": row.system, "wins": {label: share_text(each.win_rate) for label, each in row.scores.items()}}
            for row in evaluation.report.rows
        ],
        "sections": [
            {
                "title": section.title,
                "pictures": [f"{PICTURES}/{chart.name}.png" for chart in section.charts],
                "tables": [asdict(grid) for grid in section.more or section.grids],
                "dialogues": [asdict(dialogue) for dialogue in section.dialogues],
                "notes": list(section.notes),
            }
            for section in sections
        ],
    }


def _some(found: Item | None) -> tuple[Item, ...]:
    return () if found is None else (found,)
