import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from proxy_model.decision.features import DecisionFeatures
from proxy_model.errors import DataError, FingerprintMismatch, InvalidParameter, UnknownProxy
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import Checkpoint, write_checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.conftest import dial_policy, steering_policy
from tests.trainer import evaluations
from tests.trainer.evaluations import QUIET, SKAM, checkpoint, fit_reward, write, write_prompts
from tests.trainer.tiny_llm import tiny_llm
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.evaluate import SHIPPED_DATA, evaluate
from trainer.evaluation.judgement import compare
from trainer.evaluation.loading import load_rows
from trainer.evaluation.report import EvaluationReport
from trainer.evaluation.statistics import wilson_interval
from trainer.evaluation.systems import Row, constant_policy


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    return tiny_llm()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.jsonl")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory, llm: FrozenLLM) -> Path:
    return fit_reward(tmp_path_factory.mktemp("reward"), llm)


def bias(row: Row) -> float:
    policy = row.systems[0].policy
    assert policy is not None
    return float(policy.actor.output.bias.item())


def run(llm: FrozenLLM, prompts: Path, *systems: str, **options: Any) -> EvaluationReport:
    return evaluations.run(llm, prompts, *systems, **options).report


def test_a_proxy_that_accepts_everything_ties_with_the_base_everywhere(
    llm: FrozenLLM, prompts: Path, reward: Path, tmp_path: Path
) -> None:
    neutral = write(tmp_path / "neutral", llm, acceptance_bias=2.0)

    base, row = run(llm, prompts, neutral, reward=reward).rows

    score = row.scores["reward"]
    assert (score.wins, score.ties, score.losses) == (0, 9, 0)
    assert score.win_rate.estimate == 0.5
    assert score.win_rate_by_seed == (0.5,)
    assert (score.gain.low, score.gain.high) == (0.0, 0.0)
    assert row.changed_rate == 0.0
    assert row.accept_rate == 1.0
    assert row.rejections_per_token == 0.0
    assert (row.nll, row.length, row.eos_rate) == (base.nll, base.length, base.eos_rate)
    assert base.accept_rate is None
    assert base.forced_share is None


def test_a_proxy_that_refuses_what_it_may_is_counted_so(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    refusing = write(tmp_path / "refusing", llm, acceptance_bias=-2.0)

    base, row = run(llm, prompts, refusing).rows

    assert row.accept_rate == 0.0
    assert row.rejections_per_token > 0.5
    assert row.changed_rate == 1.0
    assert row.nll > base.nll
    assert row.passes_per_token == 1.0


def test_a_random_proxy_takes_the_accept_rate_of_the_proxy_before_it(
    llm: FrozenLLM, prompts: Path, tmp_path: Path
) -> None:
    half = Checkpoint(steering_policy(llm, seed=6, bias=2.0), SKAM, dict(llm.fingerprint))
    write_checkpoint(tmp_path / "half", half)

    _, proxy, matched, fixed = run(llm, prompts, str(tmp_path / "half"), "random", "random:0.9", max_tokens=40).rows

    assert proxy.accept_rate is not None
    assert matched.accept_rate is not None
    assert fixed.accept_rate is not None
    assert 0.3 < proxy.accept_rate < 0.6
    assert abs(matched.accept_rate - proxy.accept_rate) < 0.15  # some 300 decisions: deviation at most .03
    assert abs(fixed.accept_rate - 0.9) < 0.1


def test_the_same_seed_gives_the_same_numbers_and_prompts(llm: FrozenLLM, prompts: Path, reward: Path) -> None:
    timed = ("tokens_per_second", "gap_p50", "gap_p95", "first_token_p50")

    def numbers(seed: int) -> list[object]:
        rows = run(llm, prompts, "random:0.6", seed=seed, num_prompts=4, reward=reward).to_json()["rows"]
        return [{**row, **dict.fromkeys(timed)} for row in rows]

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


def test_a_random_proxy_answers_alike_whatever_runs_beside_it(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "wide", tmp_path / "narrow"

    for output, max_running in zip(outputs, (9, 2), strict=True):
        run(llm, prompts, "random:0.5", output=output, max_running=max_running)

    wide, narrow = ((output / "answers.jsonl").read_text() for output in outputs)
    assert wide == narrow


def test_prompts_that_are_too_long_or_of_another_source_are_left_out(llm: FrozenLLM, prompts: Path) -> None:
    report = run(llm, prompts, source="a", num_prompts=0)

    assert (report.num_prompts, report.num_too_long) == (5, 1)


def test_answers_that_leave_no_room_for_a_prompt_are_refused_before_rewards_are_loaded(
    llm: FrozenLLM, prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameter, match=f"max_tokens must be less than the {llm.max_context} tokens"):
        run(llm, prompts, "random", max_tokens=llm.max_context, reward=tmp_path / "none")


def test_refusals_are_shares_of_the_answers_to_each_source(
    llm: FrozenLLM, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts as a refusal here are answers of an even number of characters."""
    monkeypatch.setattr("trainer.evaluation.judgement.is_refusal", lambda text: len(text) % 2 == 0)
    folders = [write(tmp_path / str(bias), llm, acceptance_bias=bias) for bias in (2.0, -2.0)]

    report = run(llm, prompts, f"two={','.join(folders)}", output=tmp_path / "out")

    sources = {f"q {n}": "ab"[n % 2] for n in range(9)}
    answered = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    refused = {
        (name, source): [
            len(each["answers"][name]) % 2 == 0 for each in answered if sources[each["prompt"][-1]["content"]] == source
        ]
        for name in ("base", "two [1]", "two [2]")
        for source in "ab"
    }
    base, both = report.rows
    assert {source: len(refused["base", source]) for source in "ab"} == {"a": 5, "b": 4}
    assert 0 < sum(map(sum, refused.values())) < 27, "there must be answers of either kind"
    for source, size in (("a", 5), ("b", 4)):
        assert base.refusals[source] == wilson_interval(sum(refused["base", source]), size)
        share = (sum(refused["two [1]", source]) + sum(refused["two [2]", source])) / (2 * size)
        assert both.refusals[source].estimate == pytest.approx(share)
    assert [line.partition(" |")[0] for line in report.markdown().splitlines() if "refusals" in line] == [
        "| refusals, a",
        "| refusals, b",
    ]
    assert EvaluationReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_files_hold_every_answer_and_the_table(llm: FrozenLLM, prompts: Path, reward: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=140)

    report = run(llm, prompts, "random:0.5", reward=reward, output=tmp_path / "out", console=console)

    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert rows[0]["answers"].keys() == {"base", "random:0.5"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == json.loads(json.dumps(report.to_json()))
    markdown = (tmp_path / "out" / "evaluation.md").read_text()
    assert "| | base | random:0.5 |" in markdown
    assert f"| reward: mean | {report.rows[0].scores['reward'].mean:.3f} |" in markdown
    assert "reward: wins" in console.export_text()


def test_proxies_are_found_by_name_version_and_alias(llm: FrozenLLM, tmp_path: Path) -> None:
    registry = ProxyRegistry(tmp_path)
    for each in (1.0, 2.0):
        registry.publish("kind", checkpoint(llm, acceptance_bias=each))

    _, *rows = load_rows(("kind", "kind@1", "kind@stable"), tmp_path, llm)

    assert [bias(row) for row in rows] == [2.0, 1.0, 2.0]


def test_every_version_of_a_proxy_is_a_row_and_options_change_its_settings(llm: FrozenLLM, tmp_path: Path) -> None:
    registry = ProxyRegistry(tmp_path)
    for each in (1.0, 2.0):
        registry.publish("kind", checkpoint(llm, acceptance_bias=each))

    _, *rows = load_rows(("kind@*:p_t=.25", f"run={tmp_path}/kind@*", "two=kind@1,kind@2:p_t=0"), tmp_path, llm)

    assert [row.label for row in rows] == ["kind@1:p_t=.25", "kind@2:p_t=.25", "run@1", "run@2", "two"]
    assert [bias(row) for row in rows[:4]] == [1.0, 2.0, 1.0, 2.0]
    assert rows[0].systems[0].skam == replace(SKAM, p_t=0.25)
    assert [each.skam for each in rows[4].systems] == [SKAM, replace(SKAM, p_t=0.0)]


def test_a_conditioned_proxy_is_a_row_at_its_default_and_at_each_return_that_is_named(
    llm: FrozenLLM, prompts: Path, tmp_path: Path
) -> None:
    proxies = ProxyRegistry(tmp_path)
    proxies.publish("dial", replace(checkpoint(llm, acceptance_bias=0.0), policy=dial_policy(llm.hidden_size, 0.5)))

    names = ("dial", "dial@1:return=-1/+2", "dt(0)=dial:return=0")
    loaded = load_rows(names, tmp_path, llm)
    base, default, low, high, zero = run(llm, prompts, *names, registry=tmp_path).rows

    assert [row.systems[0].target_return for row in loaded] == [None, 0.5, -1.0, 2.0, 0.0]
    assert len({json.dumps(row.systems[0].identity, sort_keys=True) for row in loaded}) == 5
    assert [row.rejections_per_token for row in (default, high)] == [0.0, 0.0]
    assert low.rejections_per_token == zero.rejections_per_token > 0.5
    assert (default.length, default.changed_rate) == (base.length, 0.0)


def test_a_proxy_that_is_not_conditioned_has_no_row_at_a_return(llm: FrozenLLM, tmp_path: Path) -> None:
    name = write(tmp_path / "plain", llm, acceptance_bias=1.0)

    assert load_rows((name,), tmp_path, llm)[1].systems[0].target_return is None
    with pytest.raises(InvalidParameter, match=r"systems.*not conditioned"):
        load_rows((f"{name}:return=1",), tmp_path, llm)


@pytest.mark.parametrize("name", ["random:1", "random:x", "random:0", "@1", "kind@", "random", "base:p_t=.1"])
def test_systems_that_make_no_sense_are_refused(name: str, llm: FrozenLLM, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="systems"):
        load_rows((name,), tmp_path, llm)


def test_an_unknown_proxy_and_one_of_another_llm_are_refused(llm: FrozenLLM, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", checkpoint(llm, acceptance_bias=1.0, tokenizer="another"))

    with pytest.raises(UnknownProxy):
        load_rows(("nobody",), tmp_path / "proxies", llm)
    with pytest.raises(FingerprintMismatch, match="tokenizer"):
        load_rows((str(tmp_path / "other"),), tmp_path / "proxies", llm)


def test_broken_data_and_taken_outputs_are_refused_before_the_model_is_looked_for(
    prompts: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}\n")

    with pytest.raises(DataError, match="line 1"):
        evaluate(EvaluationConfig(prompts=broken, systems=(), model="/nowhere"), console=QUIET)
    with pytest.raises(InvalidParameter, match="output"):
        evaluate(EvaluationConfig(prompts=prompts, systems=(), model="/nowhere", output=tmp_path), console=QUIET)


def test_gain_is_in_deviations_of_the_base_and_wins_are_by_prompt() -> None:
    base = torch.tensor([0.0, 2.0, 4.0])  # deviation 2
    scores = torch.tensor([1.0, 2.0, 3.0])

    row = compare(scores + 1, base, seed=0)

    assert row.gain.estimate == pytest.approx(0.5)
    assert (row.wins, row.ties, row.losses) == (2, 1, 0)


def test_a_constant_policy_accepts_with_one_probability_whatever_it_sees() -> None:
    policy = constant_policy(5, 0.7)

    noise = torch.randn(6, 5), torch.randn(6, 5), torch.randn(6, 4)
    logits = policy.accept_logits(DecisionFeatures(*noise))
    assert torch.allclose(logits.sigmoid(), torch.full((6,), 0.7))


def test_the_default_dictionary_is_there() -> None:
    assert len(list(SHIPPED_DATA.glob("*.jsonl.gz"))) >= 10
