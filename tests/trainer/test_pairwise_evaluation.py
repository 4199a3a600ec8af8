"""Evaluations whose answers are shown to a judge in pairs, over a real connection."""

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy_model.errors import CostCeilingReached, GraderFailed, InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.trainer import evaluations
from tests.trainer.evaluations import write
from tests.trainer.scripted_endpoint import Reply, Scripted
from tests.trainer.tiny_llm import tiny_llm
from trainer.evaluation.config import PairwiseConfig
from trainer.evaluation.page.tables import grids
from trainer.evaluation.report import EvaluationReport
from trainer.evaluation.rows import PairwiseRow, SystemRow
from trainer.evaluation.statistics import wilson_interval
from trainer.rewards.endpoint_config import EndpointConfig

Start = Callable[[Reply], Scripted]
_SHOWN = re.compile(r"\[Answer A\]\n(.*)\n\n\[Answer B\]\n(.*)\n\nWhich is it\?", re.DOTALL)


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    return tiny_llm()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return evaluations.write_prompts(tmp_path / "prompts.jsonl")


@pytest.fixture
def systems(llm: FrozenLLM, tmp_path: Path) -> tuple[str, str]:
    """One that answers as the base does, and one whose answers all differ."""
    return (
        f"alike={write(tmp_path / 'neutral', llm, acceptance_bias=2.0)}",
        f"other={write(tmp_path / 'refusing', llm, acceptance_bias=-2.0)}",
    )


def shown(body: dict[str, Any]) -> tuple[str, str]:
    found = _SHOWN.search(body["messages"][-1]["content"])
    assert found is not None
    return found[1], found[2]


def charm(text: str) -> int:
    """What the judge goes by: nothing that depends on an answer's length, or on its place."""
    return zlib.crc32(text.encode())


def charmed(body: dict[str, Any]) -> tuple[int, str]:
    """It does not always say so outright."""
    first, second = shown(body)
    return 200, "Answer: **A**" if charm(first) > charm(second) else "b"


def outcomes(answers: list[dict[str, str]], row: str = "other") -> tuple[int, int, int]:
    """Wins, ties and losses beside the base's answers. Some are the same though their tokens are not."""
    pairs = [(charm(each[row]), charm(each["base"])) for each in answers]
    return sum(a > b for a, b in pairs), sum(a == b for a, b in pairs), sum(a < b for a, b in pairs)


def judged(
    llm: FrozenLLM, prompts: Path, server: Scripted, *systems: str, **changes: Any
) -> tuple[EvaluationReport, list[dict[str, str]]]:
    """The report, and each prompt's answers by row."""
    endpoint = EndpointConfig(**{"url": server.url, "parallel": 1, **changes})
    pairwise = PairwiseConfig(endpoint=endpoint, model="wise", criterion="Which is it?")
    output = prompts.parent / "evaluation"
    report = evaluations.run(llm, prompts, *systems, pairwise=pairwise, output=output).report
    return report, [json.loads(line)["answers"] for line in (output / "answers.jsonl").read_text().splitlines()]


def opinion(row: SystemRow) -> PairwiseRow:
    assert row.pairwise is not None
    return row.pairwise


def test_rows_win_by_what_the_judge_says_in_both_orders(
    llm: FrozenLLM, prompts: Path, systems: tuple[str, str], scripted: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_RLHF_JUDGE_KEY", "sk-judge")
    server = scripted(charmed)

    report, answers = judged(llm, prompts, server, *systems, parallel=3)

    base, alike, other = report.rows
    wins, ties, losses = outcomes(answers)
    assert wins > 0 < losses, "the judge must prefer now one and now the other"
    assert (opinion(other).wins, opinion(other).ties, opinion(other).losses) == (wins, ties, losses)
    assert opinion(other).win_rate == wilson_interval(wins + ties / 2, 9)
    assert (opinion(other).agreement, opinion(other).num_unclear, opinion(other).judge) == (1.0, 0, "wise")
    assert (opinion(alike).wins, opinion(alike).ties, opinion(alike).losses) == (0, 9, 0)
    assert opinion(alike).agreement is None
    assert base.pairwise is None
    assert len(server.asked) == 2 * (wins + losses)  # nobody asks about two answers that are the same
    assert set(server.keys) == {"Bearer sk-judge"}
    assert {body["model"] for body in server.asked} == {"wise"}


def test_a_judge_of_places_ties_everywhere_and_shows_it(
    llm: FrozenLLM, prompts: Path, systems: tuple[str, str], scripted: Start
) -> None:
    report, _ = judged(llm, prompts, scripted(lambda body: (200, "A")), systems[1])

    found = opinion(report.rows[1])
    assert (found.wins, found.ties, found.losses, found.win_rate.estimate) == (0, 9, 0, 0.5)
    assert (found.agreement, found.num_unclear) == (0.0, 0)


def test_what_is_no_verdict_counts_as_a_tie_and_is_counted(
    llm: FrozenLLM, prompts: Path, systems: tuple[str, str], scripted: Start
) -> None:
    """It has an opinion on the first prompt only."""
    first = evaluations.run(llm, prompts).scoring.prompts[0].messages[-1]["content"]

    def shy(body: dict[str, Any]) -> tuple[int, str]:
        return charmed(body) if f"user: {first}\n" in body["messages"][-1]["content"] else (200, "Both A and B.")

    report, answers = judged(llm, prompts, scripted(shy), systems[1])

    found, (wins, ties, losses) = opinion(report.rows[1]), outcomes(answers[:1])
    assert ties == 0
    assert (found.wins, found.ties, found.losses) == (wins, 8, losses)
    num_different = 9 - outcomes(answers)[1]
    assert found.num_unclear == num_different - 1
    assert found.agreement == pytest.approx(1 / num_different)


def test_a_busy_judge_is_asked_again_and_one_that_is_gone_ends_the_evaluation(
    llm: FrozenLLM, prompts: Path, systems: tuple[str, str], scripted: Start
) -> None:
    with pytest.raises(GraderFailed, match="503"):
        judged(llm, prompts, scripted(lambda body: (503, {})), systems[1], max_attempts=1)
    failures = [(429, {"error": {"message": "slow down"}}), (500, {})]
    server = scripted(lambda body: failures.pop() if failures else charmed(body))

    report, answers = judged(llm, prompts, server, systems[1])

    assert opinion(report.rows[1]).agreement == 1.0
    assert len(server.asked) == 2 + 2 * (9 - outcomes(answers)[1])


def test_the_cost_ceiling_ends_it_and_nothing_is_paid_twice(
    llm: FrozenLLM, prompts: Path, systems: tuple[str, str], scripted: Start
) -> None:
    server = scripted(charmed)
    with pytest.raises(CostCeilingReached, match="max_requests is 5"):
        judged(llm, prompts, server, systems[1], max_requests=5)
    assert len(server.asked) == 5

    report, answers = judged(llm, prompts, server, systems[1], max_requests=18)

    assert opinion(report.rows[1]).agreement == 1.0
    assert len(server.asked) == 2 * (9 - outcomes(answers)[1])


def test_a_row_of_several_seeds_has_the_judge_s_opinion_of_each(
    llm: FrozenLLM, prompts: Path, tmp_path: Path, scripted: Start
) -> None:
    folders = [write(tmp_path / str(bias), llm, acceptance_bias=bias) for bias in (2.0, -2.0)]

    report, answers = judged(llm, prompts, scripted(charmed), f"both={','.join(folders)}")

    found, (wins, ties, losses) = opinion(report.rows[1]), outcomes(answers, "both [2]")
    assert (found.wins, found.ties, found.losses) == (wins, 9 + ties, losses)
    rate = (wins + ties / 2) / 9
    assert list(found.win_rate_by_seed) == pytest.approx([0.5, rate])
    assert found.win_rate.estimate == pytest.approx((0.5 + rate) / 2)


def test_the_judge_stands_in_the_table_the_page_and_the_json(
    llm: FrozenLLM, prompts: Path, systems: tuple[str, str], scripted: Start
) -> None:
    report, _ = judged(llm, prompts, scripted(lambda body: (200, "tie")), *systems)

    table = report.markdown()
    assert "| pairwise wise: wins | - | 50.0% [22.7, 77.3] | 50.0% [22.7, 77.3] |" in table
    assert "| pairwise wise: win/tie/lose | - | 0/9/0 | 0/9/0 |" in table
    assert "| pairwise wise: same in both orders | - | - | 100.0% |" in table
    assert EvaluationReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    grid = next(each for each in grids(report, report.rows) if each.title == "By the pairwise judge wise")
    assert grid.head[1:] == ("wins", "win/tie/lose", "same in both orders", "no verdict")


def test_a_pairwise_judge_needs_a_folder(llm: FrozenLLM, prompts: Path) -> None:
    pairwise = PairwiseConfig(endpoint=EndpointConfig(url="http://127.0.0.1:9/v1"), model="wise")

    with pytest.raises(InvalidParameter, match="output must be a folder"):
        evaluations.run(llm, prompts, pairwise=pairwise)
