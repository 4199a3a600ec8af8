"""Charts over training: versions of a run, the frontier and the monitors."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from trainer.evaluation.groups import Series, origin_of_version
from trainer.evaluation.page.chart import BASE, MUTED, Chart, color_of, draw_line, figure, marker_of
from trainer.evaluation.rows import SystemRow

Log = Sequence[Mapping[str, float]]
"""A run's metrics, a mapping an iteration."""

MONITORS = (
    ("reward/raw_mean", "training reward"),
    ("answer/nll", "NLL under the LLM, nats"),
    ("answer/length", "tokens an answer"),
    ("answer/kl_to_prior", "KL to version 0, nats a position"),
    ("proxy/rejections_per_token", "rejections a token"),
    ("answer/eos_rate", "ended by themselves"),
)
"""What shows a collapse that reward and loss alone do not (arXiv:2307.04964, figure 4)."""

_WINDOW = 5
_FRONTIER_WINDOW = 12


def versions(series: Sequence[Series], labels: Sequence[str]) -> Chart:
    """Table 2 as a picture, and over-optimisation: the training reward beside those that did not train."""

    def draw() -> Figure:
        made, panels = figure(4.0 * len(series) + 3.0, 3.7, 1, len(series))
        for panel, run in zip(panels, series, strict=True):
            for number, label in enumerate(labels):
                points = [(_prompts(row), row.scores[label].gain) for row in run.rows]
                draw_line(panel, points, number, label)
            panel.axhline(0, color=BASE, linewidth=1)
            panel.set_title(run.name)
            panel.set_xlabel("prompts seen")
        panels[0].set_ylabel("gain, deviations of the base's scores")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return made

    return Chart(
        name="over_optimisation",
        title="Training reward against held-out judges",
        caption=(
            "Every version of a run on the same held-out prompts, with 95 % intervals as bands. Where the training "
            "reward goes on rising and the judges turn down, the proxy has begun to exploit its reward."
        ),
        draw=draw,
    )


def frontier(logs: Mapping[str, Log]) -> Chart:
    """Reward against how far the proxy has moved, over a run's iterations."""

    def draw() -> Figure:
        made, (panel,) = figure(8.2, 4.0)
        for number, (name, log) in enumerate(logs.items()):
            kl = smoothed(log, "answer/kl_to_prior", _FRONTIER_WINDOW)
            reward = smoothed(log, "reward/raw_mean", _FRONTIER_WINDOW)
            panel.plot(kl, reward, color=color_of(number), linewidth=1.6)
            panel.plot(kl[-1], reward[-1], marker=marker_of(number), color=color_of(number), markersize=9, label=name)
            panel.plot(kl[0], reward[0], marker="o", color=MUTED, markersize=5)
        panel.set_xlabel("KL to version 0, nats a position")
        panel.set_ylabel("training reward")
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return made

    return Chart(
        name="frontier",
        title="Reward against KL",
        caption=f"Training rollouts, mean of {_FRONTIER_WINDOW} iterations, from the small dot to the large mark.",
        draw=draw,
    )


def monitors(logs: Mapping[str, Log]) -> Chart:
    """What tells a collapse from progress."""

    def draw() -> Figure:
        made, panels = figure(11, 5.4, 2, 3)
        for panel, (key, title) in zip(panels, MONITORS, strict=True):
            for number, (name, log) in enumerate(logs.items()):
                seen = [row["progress/prompts"] for row in log]
                panel.plot(seen, smoothed(log, key), color=color_of(number), linewidth=1.6, label=name)
            panel.set_title(title, fontsize=10.5)
        for panel in panels[3:]:
            panel.set_xlabel("prompts seen")
        panels[2].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return made

    return Chart(
        name="monitors",
        title="Collapse monitors",
        caption=(
            f"Training rollouts, running mean of {_WINDOW} iterations. A collapse shows as reward, length and KL up "
            "while the NLL goes down; drift as an NLL far above that of version 0."
        ),
        draw=draw,
    )


def smoothed(log: Log, key: str, window: int = _WINDOW) -> list[float]:
    """Running mean over the last `window` iterations up to each one."""
    values = [row[key] for row in log]
    windows = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(each) / len(each) for each in windows]


def _prompts(row: SystemRow) -> float:
    origin = origin_of_version(row)
    assert origin is not None and origin.prompts_seen is not None
    return float(origin.prompts_seen)
