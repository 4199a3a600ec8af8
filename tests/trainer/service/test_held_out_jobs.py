"""Jobs with a validation file: what is asked of it, and what becomes of the job."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy_model.llm.frozen_llm import load_llm
from proxy_model.paths import proxies_root, rewards_root
from proxy_model.versions.registry import ProxyRegistry
from store.fine_tuning.gates import Gates
from store.fine_tuning.journal import Journal
from store.fine_tuning.specification import Specification
from store.page import Page
from tests.trainer.service.job_bench import ANSWER_ROWS, ROWS, Bench, given, pair_rows, prompt_rows, specification
from tests.trainer.tiny_reward import write_tiny_reward
from trainer.evaluation.timed_engine import TimedEngine
from trainer.loop import train


@pytest.mark.parametrize(
    ("limits", "status", "stable"),
    [({"max_rejections_per_token": 50.0}, "succeeded", {"stable": 1}), ({"min_reward_gain": 900.0}, "failed", {})],
)
def test_gates_decide_whether_a_job_succeeds(
    bench: Bench, llm_folder: Path, limits: dict[str, float], status: str, stable: dict[str, int]
) -> None:
    write_tiny_reward(rewards_root(bench.home) / "calm", load_llm(str(llm_folder)))
    gates = Gates(judge="calm", num_prompts=4, max_tokens=8, **limits)
    ordered = replace(given("dpo", llm_folder, n_epochs=1, rejections_per_token=0), gates=gates)
    job = bench.order(pair_rows(), Specification.from_json(ordered.to_json()), held_out=ROWS)

    bench.worker(train)._attempt()

    done = bench.now(job)
    assert done.status == status
    registry = ProxyRegistry(proxies_root(bench.home))
    assert registry.versions("wordy") == [1]
    assert registry.aliases("wordy").versions == stable
    if status == "failed":
        assert done.error is not None
        assert done.error.code == "gate_failed"
        assert "tiny:wordy@1 has not passed its gates against base on 4 of 12 prompts: " in done.error.message
        assert "reward_gain is" in done.error.message
        assert "limit 900: off by" in done.error.message
        assert done.fine_tuned_model is None


def test_bad_lines_of_a_validation_file_are_told(bench: Bench, llm_folder: Path) -> None:
    job = bench.order(pair_rows(), given("dpo", llm_folder), held_out=ROWS + "{}\n")

    error = bench.now(job).error
    assert error is not None
    assert (bench.now(job).status, error.code, error.param) == ("failed", "invalid_validation_file", "validation_file")
    assert "line 13: " in error.message


def test_a_validation_file_that_is_deleted_before_training_fails_the_job(bench: Bench, llm_folder: Path) -> None:
    job = bench.order(pair_rows(), given("dpo", llm_folder), held_out=ROWS)
    assert job.validation_file is not None
    bench.files.delete("me", job.validation_file)

    bench.worker(train)._attempt()

    error = bench.now(job).error
    assert error is not None
    assert (error.code, error.param) == ("validation_file_gone", "validation_file")


def test_a_validation_file_in_which_nothing_fits_is_told_from_the_training_file(bench: Bench, llm_folder: Path) -> None:
    write_tiny_reward(rewards_root(bench.home) / "calm", load_llm(str(llm_folder)))
    gates = Gates(judge="calm", max_tokens=8, max_rejections_per_token=50.0)
    job = bench.order(pair_rows(), replace(given("dpo", llm_folder), gates=gates), held_out=pair_rows(12, long=12))

    bench.worker(train)._attempt()

    error = bench.now(job).error
    assert error is not None
    assert (error.code, error.param) == ("invalid_validation_file", "validation_file")
    assert error.message == "The validation file: no prompt has at most 120 tokens."


def test_gates_are_not_asked_on_a_handful_of_prompts(bench: Bench, llm_folder: Path) -> None:
    """Nine that fit are too few; ten are not, and the event says how many did not fit."""
    write_tiny_reward(rewards_root(bench.home) / "calm", load_llm(str(llm_folder)))
    gates = Gates(judge="calm", max_tokens=8, max_rejections_per_token=50.0)
    ordered = replace(given("dpo", llm_folder, n_epochs=1), gates=gates)
    few = bench.order(pair_rows(), ordered, held_out=prompt_rows(14, long=5))
    enough = bench.order(pair_rows(), ordered, held_out=prompt_rows(14, long=4))
    worker = bench.worker(train)

    worker._attempt()
    worker._attempt()

    error = bench.now(few).error
    assert error is not None
    assert (error.code, error.param) == ("invalid_validation_file", "validation_file")
    assert error.message == ("The validation file: 9 of 14 prompts have at most 120 tokens; gates need at least 10.")
    assert bench.now(enough).status == "succeeded"
    asked = "has passed its gates against base on 10 of 14 prompts (4 have more than 120 tokens)"
    assert [each for each in bench.messages(enough) if "gates" in each] == [f"tiny:wordy@1 {asked}"]


def test_the_grader_scores_the_answers_to_a_validation_file(bench: Bench, llm_folder: Path) -> None:
    chosen = replace(specification(checkpoint_interval=2), llm_source=str(llm_folder), gates=Gates(max_tokens=6))
    job = bench.order(ROWS, chosen, held_out=ROWS)

    bench.worker(train)._attempt()

    assert bench.now(job).status == "succeeded"
    rows = bench.rows(job)
    looks = [row.get("held_out/reward") for row in rows]
    assert [look is None for look in looks] == [True, False, False]
    assert all(0 < row["held_out/length"] <= 6 for row in rows[1:])
    assert "held_out/judge" not in rows[-1]
    checkpoints, _ = Journal(bench.database).checkpoints(job.id, Page())
    assert [each.metrics.get("held_out/reward") for each in checkpoints] == looks[1:]


def test_a_judge_without_limits_only_looks(bench: Bench, llm_folder: Path) -> None:
    write_tiny_reward(rewards_root(bench.home) / "calm", load_llm(str(llm_folder)))
    chosen = replace(given("supervised", llm_folder, n_epochs=1), gates=Gates(judge="calm", num_prompts=4))
    job = bench.order(ANSWER_ROWS, chosen, held_out=ANSWER_ROWS)

    bench.worker(train)._attempt()

    checkpoints, _ = Journal(bench.database).checkpoints(job.id, Page())
    assert [sorted(name for name in each.metrics if name.startswith("held_out")) for each in checkpoints] == [
        ["held_out/judge", "held_out/length"]
    ]
    registry = ProxyRegistry(proxies_root(bench.home))
    assert registry.aliases("wordy").versions == {"stable": 1}
    assert not registry.verdicts("wordy").by_version


@pytest.mark.parametrize(("act", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_gates_are_left_when_the_job_is_taken_back(
    bench: Bench, llm_folder: Path, monkeypatch: pytest.MonkeyPatch, act: str, status: str
) -> None:
    """Taken back while the version that is published already is examined: the answers' end is not waited for."""
    monkeypatch.setattr("trainer.service.heartbeat._LOOK_SECONDS", 0.01)
    write_tiny_reward(rewards_root(bench.home) / "calm", load_llm(str(llm_folder)))
    gates = Gates(judge="calm", num_prompts=4, max_tokens=8, max_rejections_per_token=50.0)
    job = bench.order(pair_rows(), replace(given("dpo", llm_folder, n_epochs=1), gates=gates), held_out=ROWS)
    registry = ProxyRegistry(proxies_root(bench.home))
    answers = TimedEngine.answers

    def take_back(self: Any, requests: Any, before_step: Callable[[], None]) -> Any:
        if registry.versions("wordy") and bench.now(job).status == "running":
            getattr(bench.jobs, act)("me", job.id)
            for _ in range(1000):
                before_step()
                time.sleep(0.01)
        return answers(self, requests, before_step)

    monkeypatch.setattr(TimedEngine, "answers", take_back)
    bench.worker(train, bench.source(lease_seconds=3000))._attempt()

    assert bench.now(job).status == status
    assert (registry.versions("wordy"), registry.verdicts("wordy").by_version[1].state) == ([1], "pending")
    assert registry.aliases("wordy").versions == {}
    if act == "pause":
        monkeypatch.setattr(TimedEngine, "answers", answers)
        bench.jobs.resume("me", job.id)
        bench.worker(train)._attempt()
        assert bench.now(job).status == "succeeded"
        assert bench.steps(job) == [1, 2, 3]
        assert (registry.versions("wordy"), registry.aliases("wordy").versions) == ([1], {"stable": 1})
