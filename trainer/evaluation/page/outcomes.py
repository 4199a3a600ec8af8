"""Charts of what the systems achieve: win rates, what they cost, how the rewards spread."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trainer.evaluation.page.chart import BASE, INK, MUTED, Chart, color_of, figure, marker_of
from trainer.evaluation.rows import SystemRow
from trainer.evaluation.system_name import Kind

PAPER_WIN_RATE = 0.6324
"""Proxy-RLHF against SFT by GPT-4 (arXiv:2403.04283, figure 2b): another LLM, reward and judge."""

_MAX_CURVES = 3
_COMPARED: tuple[Kind, ...] = ("proxy", "llm", "best-of", "rerank", "random")
"""What is worth a curve, the most first."""


def win_rates(rows: Sequence[SystemRow], labels: Sequence[str]) -> Chart | None:
    """Figure 2b: the share of prompts won against the base, a panel for each reward model."""
    shown = [row for row in rows if row.kind != "base"]
    if not shown or not labels:
        return None

    def draw() -> Figure:
        names = 0.09 * max(len(row.system) for row in shown)
        made, panels = figure(4.3 * len(labels) + names, 0.42 * len(shown) + 1.3, 1, len(labels))
        for number, (panel, label) in enumerate(zip(panels, labels, strict=True)):
            _forest(panel, shown, label)
            panel.set_yticks(range(len(shown)), [row.system for row in shown] if number == 0 else [])
        return made

    return Chart(
        name="win_rates",
        title="Win rate against the LLM alone",
        caption=(
            "Share of the same held-out prompts whose answer scores above the base's greedy one, ties half, with 95 % "
            "intervals; small marks are single training seeds. Dotted: 63.24 %, the paper's figure by GPT-4 with "
            "another LLM, for orientation only."
        ),
        draw=draw,
    )


def cost(rows: Sequence[SystemRow], label: str) -> Chart | None:
    """What a win costs in passes of the LLM."""
    shown = [row for row in rows if row.kind != "base"]
    if len(shown) < 2:
        return None

    def draw() -> Figure:
        made, (panel,) = figure(8.6, 4.4)
        for number, (row, place) in enumerate(zip(shown, _apart([row.passes_per_token for row in shown]), strict=True)):
            rate = row.scores[label].win_rate
            errors = [[rate.estimate - rate.low], [rate.high - rate.estimate]]
            panel.errorbar(
                place,
                rate.estimate,
                yerr=errors,
                color=color_of(number),
                marker=marker_of(number),
                markersize=8,
                linewidth=1.4,
                linestyle="none",
                label=row.system,
            )
        panel.axhline(0.5, color=BASE, linewidth=1)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("LLM passes for each token of the answer (log scale)")
        panel.set_ylabel(f"wins, {label}")
        panel.yaxis.set_major_formatter(_percent)
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return made

    return Chart(
        name="cost",
        title="What a win costs",
        caption=(
            "Best-of-n pays for all its samples, re-ranking for every candidate that the reward reads (by the share of "
            "the layers run); a proxy that reads the prefix decides on states that "
            "the LLM has computed anyway. Systems at the same place stand side by side."
        ),
        draw=draw,
    )


def histograms(rows: Sequence[SystemRow], scores: Mapping[str, Mapping[str, Tensor]]) -> Chart | None:
    """Figure 2a: how the scores spread; `scores` by reward model and row, (S, B) each."""
    shown = sorted((row for row in rows if row.kind in _COMPARED), key=lambda row: _COMPARED.index(row.kind))
    shown = shown[:_MAX_CURVES]
    if not shown or not scores:
        return None

    def draw() -> Figure:
        made, panels = figure(4.0 * len(scores) + 1.6, 3.2, 1, len(scores))
        for panel, (label, by_row) in zip(panels, scores.items(), strict=True):
            _spread(panel, {row.system: by_row[row.system] for row in shown}, by_row[rows[0].system])
            panel.set_title(label)
            panel.set_xlabel("score")
        panels[0].set_ylabel("density of the answers")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return made

    return Chart(
        name="reward_histograms",
        title="How the scores spread",
        caption="Scores of all answers by each reward model, smoothed; filled: the LLM alone, greedy.",
        draw=draw,
    )


def _forest(panel: Axes, rows: Sequence[SystemRow], label: str) -> None:
    for place, row in enumerate(rows):
        score = row.scores[label]
        rate = score.win_rate
        is_sure = rate.low > 0.5 or rate.high < 0.5
        tint = color_of(0) if rate.low > 0.5 else color_of(5) if rate.high < 0.5 else BASE
        panel.plot([rate.low, rate.high], [place, place], color=tint, linewidth=2.2, solid_capstyle="round")
        panel.plot(rate.estimate, place, marker="o" if is_sure else "D", color=tint, markersize=7.5)
        if len(score.win_rate_by_seed) > 1:
            panel.plot(
                score.win_rate_by_seed,
                [place + 0.24] * len(score.win_rate_by_seed),
                marker="|",
                color=MUTED,
                linestyle="none",
            )
        panel.annotate(
            f"{rate.estimate:.1%}",
            (1.02, place),
            xycoords=panel.get_yaxis_transform(),
            va="center",
            fontsize=9.5,
            color=INK,
        )
    panel.axvline(0.5, color=BASE, linewidth=1.2)
    panel.axvline(PAPER_WIN_RATE, color=MUTED, linewidth=1, linestyle=":")
    panel.set_title(label)
    panel.set_xlabel("prompts won")
    panel.set_ylim(len(rows) - 0.4, -0.6)
    bounds = [each for row in rows for each in (row.scores[label].win_rate.low, row.scores[label].win_rate.high)]
    panel.set_xlim(max(-0.02, min(0.4, *bounds) - 0.03), min(1.02, max(0.68, *bounds) + 0.03))
    panel.xaxis.set_major_formatter(_percent)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0, labelcolor=INK)
    panel.spines["left"].set_visible(False)


def _spread(panel: Axes, by_row: Mapping[str, Tensor], base: Tensor) -> None:
    together = torch.cat([base.flatten(), *(each.flatten() for each in by_row.values())])
    margin = 0.1 * float(together.max() - together.min()) + 1e-3
    places = torch.linspace(float(together.min()) - margin, float(together.max()) + margin, 200)
    panel.fill_between(
        places.tolist(), density(base, places).tolist(), color=BASE, alpha=0.35, linewidth=0, label="base"
    )
    for number, (name, scores) in enumerate(by_row.items()):
        style = ("-", "--", "-.")[number % 3]
        curve = density(scores, places).tolist()
        panel.plot(places.tolist(), curve, color=color_of(number), linestyle=style, label=name)
        panel.axvline(float(scores.mean()), color=color_of(number), linewidth=1, linestyle=style, alpha=0.6)
    panel.set_ylim(bottom=0)
    panel.set_yticks([])
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_visible(False)


def density(scores: Tensor, places: Tensor) -> Tensor:
    """Gaussian kernel density of `scores` at `places` (N,), Silverman's bandwidth."""
    values = scores.flatten().float()
    width = max(1.06 * float(values.std()) * len(values) ** -0.2, 1e-3) if len(values) > 1 else 1.0
    z = (places[:, None] - values) / width
    return torch.exp(-0.5 * z.square()).mean(dim=1) / (width * math.sqrt(2 * math.pi))


def _apart(places: Sequence[float]) -> list[float]:
    """Places on a logarithmic axis, those that coincide moved a little to the right."""
    moved: list[float] = []
    for place in places:
        while any(abs(other / place - 1) < 0.03 for other in moved):
            place *= 1.045
        moved.append(place)
    return moved


def _percent(value: float, _: float) -> str:
    return f"{value:.0%}"
