"""The page is whole, needs nobody, and shows only what there is."""

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import Checkpoint, write_checkpoint
from tests.trainer.evaluations import checkpoint, fit_reward, run, write, write_prompts
from tests.trainer.tiny_llm import tiny_llm
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.groups import Groups
from trainer.evaluation.origin import Origin
from trainer.evaluation.page.chart import SERIES
from trainer.evaluation.page.outcomes import density, win_rates
from trainer.evaluation.page.page import page_sections, write_page
from trainer.evaluation.page.sweeps import sweep_charts
from trainer.evaluation.page.training import smoothed
from trainer.evaluation.rows import SystemRow
from trainer.evaluation.statistics import Interval

LOG_ROW = {
    "reward/raw_mean": 0.5,
    "answer/nll": 1.0,
    "answer/length": 10.0,
    "answer/kl_to_prior": 0.25,
    "proxy/rejections_per_token": 0.125,
    "answer/eos_rate": 0.5,
    "speed/rollout_seconds": 30.0,
    "speed/score_seconds": 20.0,
    "speed/update_seconds": 10.0,
}


class Links(HTMLParser):
    """Everything in a page that could make a browser ask for something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"<{tag}>" for _ in range(tag in ("script", "link", "iframe", "object", "img"))]
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "srcset", "data") and not (value or "").startswith("#"):
                self.found.append(f"{name}={value}")
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    return tiny_llm()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.jsonl")


@pytest.fixture(scope="module")
def trained(llm: FrozenLLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two versions and its log, as the trainer leaves them; returns the folder of versions."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "proxies" / "tame").mkdir(parents=True)
    settings = {"output": str(folder), "seed": 7, "algorithm": "ppo"}
    for version, bias in ((1, 2.0), (2, -2.0)):
        card = {
            "settings": settings,
            "iterations": 2 * version,
            "prompts_seen": 24 * version,
            "metrics": {"speed/peak_rss_mib": 1234.5},
        }
        found = checkpoint(llm, acceptance_bias=bias)
        write_checkpoint(folder / "proxies" / "tame" / str(version), replace(found, card=card))
    rows = [{**LOG_ROW, "progress/prompts": 12.0 * number} for number in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "proxies" / "tame"


@pytest.fixture(scope="module")
def full(
    llm: FrozenLLM, prompts: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    """An evaluation with everything that a page can show."""
    folder = tmp_path_factory.mktemp("full")
    found = run(
        llm,
        prompts,
        f"tame={trained}@*",
        f"sweep={trained}@2:p_t=.1/.001",
        "best-of:2",
        reward=fit_reward(folder, llm),
        output=folder / "out",
        report=True,
        card=True,
    )
    return found, folder / "out"


def test_the_page_asks_nobody_for_anything(full: tuple[Evaluation, Path]) -> None:
    page = (full[1] / "report.html").read_text()

    links = Links(page)
    assert links.found == []
    assert len(links.ids) == len(set(links.ids))
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(links.ids)


def test_the_charts_take_the_colours_of_the_page(full: tuple[Evaluation, Path]) -> None:
    page = (full[1] / "report.html").read_text()

    charts = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--series-0)" in charts
    assert not any(color in charts for color in SERIES)
    assert set(re.findall(r"var\((--[\w-]+)\)", charts)) <= set(re.findall(r"(--[\w-]+):", page))


def test_everything_that_was_measured_is_on_the_page(full: tuple[Evaluation, Path]) -> None:
    evaluation, folder = full

    sections = [section.id for section in page_sections(evaluation, 20)]
    assert sections == [
        "wins", "cost", "table", "scores", "sweeps", "versions", "monitors", "parameters", "answers",
    ]  # fmt: skip
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    assert pictures == {
        "win_rates.png", "cost.png", "reward_histograms.png", "sweep_1_p_t.png", "over_optimisation.png",
        "frontier.png", "monitors.png",
    }  # fmt: skip
    assert all((folder / "pictures" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    numbers = json.loads((folder / "report.json").read_text())
    assert numbers["evaluation"] == json.loads((folder / "evaluation.json").read_text())


def test_sections_without_data_are_left_out(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    proxy = write(tmp_path / "proxy", llm, acceptance_bias=-2.0)

    unjudged = page_sections(run(llm, prompts, f"mine={proxy}"), 20)
    alone = page_sections(run(llm, prompts), 20)

    assert [section.id for section in unjudged] == ["table", "parameters", "answers"]
    assert [section.id for section in alone] == ["table"]


def test_rejected_tokens_stand_before_the_token_that_came(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    proxy = write(tmp_path / "proxy", llm, acceptance_bias=-2.0)
    found = run(llm, prompts, proxy, output=tmp_path / "out", num_shown=9)

    page = write_page(tmp_path / "out", found, 9).read_text()

    items = found.answered[1].members[0].items
    assert page.count("<del>") - 1 == sum(item.rejected for item in items) > 9  # one explains the others
    assert page.count("<details") == 9


def test_the_name_of_an_end_token_is_not_shown(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    found = run(llm, prompts, "accept-all", output=tmp_path / "out")

    page = write_page(tmp_path / "out", found, 9).read_text()

    assert any(item.tokens[-1].text == "<|end|>" for item in found.answered[1].members[0].items)
    assert "|end|" not in page


def test_what_a_prompt_says_is_text_and_not_html(llm: FrozenLLM, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    row = {"prompt": [{"role": "user", "content": "<script>a</script>"}], "source": "a"}
    path.write_text(json.dumps(row) + "\n")
    found = run(llm, path, "accept-all", output=tmp_path / "out")

    page = write_page(tmp_path / "out", found, 1).read_text()

    assert "<script" not in page
    assert "&lt;script&gt;a&lt;/script&gt;" in page


def test_what_a_run_logged_is_known_of_its_versions(full: tuple[Evaluation, Path]) -> None:
    first, second = (row.origins[0] for row in full[0].report.rows[1:3])

    assert (first.prompts_seen, second.prompts_seen) == (24, 48)
    assert (first.minutes, second.minutes) == (2.0, 4.0)  # two and four iterations of a minute
    assert (second.algorithm, second.seed, second.memory_mib) == ("ppo", 7, 1234.5)
    assert second.num_parameters > second.num_actor_parameters > 0


def test_sweeps_and_versions_are_told_from_rows_of_their_own(full: tuple[Evaluation, Path]) -> None:
    groups = Groups.of(full[0].report.rows)

    assert [[row.system for row in each.rows] for each in groups.versions] == [["tame@1", "tame@2"]]
    (sweep,) = groups.sweeps
    assert [[row.p_t for row in line] for line in sweep.p_t] == [[0.0005, 0.001, 0.1]]
    assert sweep.temperature == ()
    assert [row.system for row in groups.headline] == ["base", "tame@2", "best-of:2"]


def swept(full: tuple[Evaluation, Path], *settings: tuple[float, float, float]) -> list[SystemRow]:
    """A proxy's rows under some (p_t, temperature, top_p)."""
    row = full[0].report.rows[1]
    return [
        replace(row, system=f"mine:{p_t}/{temperature}/{top_p}", p_t=p_t, temperature=temperature, top_p=top_p)
        for p_t, temperature, top_p in settings
    ]


def test_a_line_of_a_sweep_joins_what_differs_in_one_setting_only(full: tuple[Evaluation, Path]) -> None:
    rows = swept(full, (0.1, 1, 0.9), (0.01, 1, 0.9), (0, 1, 1), (0, 0.5, 0.9), (0, 1, 0.9), (0.001, 0.25, 0.9))

    groups = Groups.of(rows)

    (sweep,) = groups.sweeps
    assert [[row.p_t for row in line] for line in sweep.p_t] == [[0, 0.01, 0.1]]
    assert [[row.temperature for row in line] for line in sweep.temperature] == [[0.5, 1]]
    assert [row.system for row in groups.headline] == ["mine:0.1/1/0.9", "mine:0/1/1", "mine:0.001/0.25/0.9"]


def test_rows_that_decide_or_aim_otherwise_are_no_sweep(full: tuple[Evaluation, Path]) -> None:
    greedy, sampled = swept(full, (0.1, 1, 0.9), (0.01, 1, 0.9))

    assert Groups.of([greedy, replace(sampled, decision="sample")]).sweeps == ()
    assert Groups.of([greedy, replace(sampled, target_return=2.0)]).sweeps == ()


def test_a_sweep_has_a_chart_for_p_t_and_one_for_temperature(full: tuple[Evaluation, Path]) -> None:
    """p_t 0 has a place of its own on the logarithmic axis; names that would stand over one another are left out."""
    rows = swept(full, (0.1, 1, 0.9), (0.015, 1, 0.9), (0.01, 1, 0.9), (0, 1, 0.9), (0.01, 0.5, 0.9), (0.1, 0.5, 0.9))

    charts = sweep_charts(Groups.of(rows).sweeps, ["reward"])

    assert [chart.name for chart in charts] == ["sweep_1_p_t", "sweep_1_temperature"]
    by_p_t, by_temperature = (chart.draw().axes[0] for chart in charts)
    assert by_p_t.get_xticks().tolist() == pytest.approx([-2.5, -2, math.log10(0.015), -1])
    assert [name.get_text() for name in by_p_t.get_xticklabels()] == ["off", "0.01", "", "0.1"]
    assert by_p_t.lines[0].get_xdata() == pytest.approx([-2.5, -2, math.log10(0.015), -1])
    legend = by_p_t.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["temperature 1", "temperature 0.5"]
    assert by_temperature.get_xticks().tolist() == [0.5, 1]
    assert [line.get_label() for line in by_temperature.lines[:2]] == ["p_t 0.1", "p_t 0.01"]


def test_a_sweep_that_nobody_judged_has_no_chart(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    proxy = write(tmp_path / "proxy", llm, acceptance_bias=-2.0)

    sections = page_sections(run(llm, prompts, f"mine={proxy}:p_t=.1/.001"), 20)

    assert "sweeps" not in [section.id for section in sections]


def test_runs_on_recorded_answers_are_in_no_chart_over_training(
    llm: FrozenLLM, prompts: Path, trained: Path, tmp_path: Path
) -> None:
    """Their logs describe those answers, the same whatever is learnt of them."""
    run_folder = tmp_path / "offline"
    shutil.copytree(trained.parents[1], run_folder)
    shutil.rmtree(run_folder / "proxies" / "tame" / "1")

    def sections(data: str | None) -> list[str]:
        (run_folder / "settings.json").write_text(json.dumps({"output": str(run_folder), "data": data}))
        return [each.id for each in page_sections(run(llm, prompts, f"{run_folder}/proxies/tame@2"), 20)]

    assert "monitors" in sections(None)
    assert "monitors" not in sections("answers")


def test_percentages_stand_beside_the_panel_whatever_was_won(full: tuple[Evaluation, Path]) -> None:
    """A text at the end of an interval overprinted the paper's line, and ran out of the picture from 90 % on."""
    row = full[0].report.rows[1]
    score = replace(row.scores["reward"], win_rate=Interval(0.96, 0.91, 0.99))

    chart = win_rates([replace(row, scores={"reward": score})], ["reward"])

    assert chart is not None
    made = chart.draw()
    made.draw_without_rendering()
    (panel,) = made.axes
    (text,) = panel.texts
    bounds = text.get_window_extent()
    assert text.get_text() == "96.0%"
    assert panel.get_window_extent().x1 < bounds.x0
    assert bounds.x1 <= made.bbox.x1


def test_a_card_says_what_was_won_and_lost(full: tuple[Evaluation, Path]) -> None:
    evaluation, folder = full

    card = (folder / "card.md").read_text()

    score = evaluation.report.rows[2].scores["reward"]
    assert card.startswith("# tame@2: a proxy for tiny\n")
    assert "prompts seen: 48" in card
    assert f"{score.win_rate.estimate:.1%} of the prompts won" in card
    assert "| | base | tame@2 |" in card
    stored = json.loads((folder / "card.json").read_text())
    assert [row["system"] for row in stored["evaluation"]["rows"]] == ["base", "tame@2"]


def test_a_report_asks_for_a_folder(llm: FrozenLLM, prompts: Path) -> None:
    with pytest.raises(InvalidParameter, match="output"):
        run(llm, prompts, report=True)


def test_a_chart_without_a_rival_is_not_drawn(full: tuple[Evaluation, Path]) -> None:
    base: SystemRow = full[0].report.rows[0]

    assert win_rates([base], ["reward"]) is None


def test_running_means_and_densities_by_hand() -> None:
    log = [{"a": value} for value in (1.0, 2.0, 6.0, 1.0, 5.0, 6.0)]
    places = torch.linspace(-8, 8, 1601)

    assert smoothed(log, "a") == pytest.approx([1.0, 1.5, 3.0, 2.5, 3.0, 4.0])
    curve = density(torch.tensor([-1.0, 1.0]), places)
    assert float(curve.sum()) * 0.01 == pytest.approx(1.0, abs=1e-3)
    assert float(curve[800]) == pytest.approx(float(curve.flip(0)[800]))


def test_an_origin_without_a_card_is_what_can_be_counted(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    found: Checkpoint = checkpoint(llm, acceptance_bias=1.0)
    write_checkpoint(tmp_path / "bare", found)

    (origin,) = run(llm, prompts, str(tmp_path / "bare")).report.rows[1].origins

    count = sum(each.numel() for each in found.policy.parameters())
    actor = sum(each.numel() for each in found.policy.actor.parameters())
    assert origin == Origin(num_parameters=count, num_actor_parameters=actor)
