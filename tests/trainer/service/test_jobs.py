"""Fine-tuning jobs in this process: a tiny LLM is really trained, the store is a SQLite file."""

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy_model import disk
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.replay import replay
from proxy_model.errors import BadCheckpoint, DataError, GraderFailed, OutputTaken
from proxy_model.llm.tokenizer import ChatTokenizer
from proxy_model.paths import jobs_root, proxies_root
from proxy_model.versions.registry import ProxyRegistry
from store.fine_tuning.graders import parse_grader
from store.fine_tuning.journal import Journal
from store.fine_tuning.queue import MAX_FAILURES
from store.fine_tuning.specification import Method
from store.page import Page
from tests.trainer.service.job_bench import ANSWER_ROWS, Bench, given, pair_rows, prompt_rows, specification
from trainer.loop import Supervision, TrainResult, train
from trainer.offline.folder import read_shards
from trainer.service.job_config import job_config, run_folder
from trainer.service.worker import Trains


def raising(error: Exception) -> Trains:
    def trains(*arguments: Any, **options: Any) -> TrainResult:
        raise error

    return trains


def test_a_job_is_trained_published_and_its_data_deleted(bench: Bench, trains: Trains) -> None:
    job = bench.order(checkpoint_interval=2)
    worker = bench.worker(trains)

    worker._attempt()

    done = bench.now(job)
    assert (done.status, done.fine_tuned_model, done.step, done.error) == ("succeeded", "tiny:wordy", 3, None)
    assert done.trained_tokens is not None
    assert 12 <= done.trained_tokens <= 12 * 8
    assert bench.steps(job) == [1, 2, 3]
    checkpoints, _ = Journal(bench.database).checkpoints(job.id, Page())
    assert [(each.step, each.model) for each in checkpoints] == [(2, "tiny:wordy@1"), (3, "tiny:wordy@2")]
    assert ProxyRegistry(proxies_root(bench.home)).aliases("wordy").versions == {"stable": 2}
    assert (jobs_root(bench.home) / job.id).exists()
    worker._attempt()
    assert not (jobs_root(bench.home) / job.id).exists()


@pytest.mark.parametrize("act", ["cancel", "pause"])
def test_a_rollout_is_left_when_the_job_is_taken_back(
    bench: Bench, trains: Trains, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Taken back during the second iteration's rollout: its end is not waited for."""
    monkeypatch.setattr("trainer.service.heartbeat._LOOK_SECONDS", 0.01)
    job = bench.order()
    worker = bench.worker(trains, bench.source(lease_seconds=3000))
    generate = Engine.generate

    def take_back(self: Any, requests: Any, before_step: Callable[[], None]) -> Any:
        if bench.steps(job) == [1]:
            getattr(bench.jobs, act)("me", job.id)
            while True:
                before_step()
        return generate(self, requests, before_step)

    monkeypatch.setattr(Engine, "generate", take_back)
    worker._attempt()

    assert bench.now(job).status == {"cancel": "cancelled", "pause": "paused"}[act]
    assert bench.steps(job) == [1]
    assert not ProxyRegistry(proxies_root(bench.home)).names()
    if act == "pause":
        monkeypatch.setattr(Engine, "generate", generate)
        bench.jobs.resume("me", job.id)
        worker._attempt()
        assert bench.now(job).status == "succeeded"
        assert bench.steps(job) == [1, 2, 3]


def test_what_a_dead_trainer_had_not_told_is_told_by_the_next_one(bench: Bench, trains: Trains) -> None:
    """It saved iterations 1 and 2, and died before it had told of the second."""
    job = bench.order()
    first = bench.source(lease_seconds=0.01)
    work = first.next_work()
    assert work is not None
    rows = []

    def watch(row: Any, alarms: list[str]) -> None:
        rows.append(row)
        if len(rows) == 1:
            work.observer.on_iteration(row)

    stop = Supervision(must_stop=lambda: len(rows) >= 2)
    trains(work.config, is_resumed=False, on_iteration=watch, supervision=stop)
    work.observer.heartbeat.stop()  # type: ignore[attr-defined]
    assert bench.steps(job) == [1]
    time.sleep(0.05)

    bench.worker(trains)._attempt()

    assert bench.now(job).status == "succeeded"
    assert bench.steps(job) == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            DataError("/secret/prompts.jsonl", 4, "no prompt fits"),
            "invalid_training_file",
            "Line 4 of the training file",
        ),
        (GraderFailed("kind", "the judge said 500"), "grader_failed", "the judge said 500"),
        (BadCheckpoint("torn", "/secret/rewards"), "not_usable", "Not in order (torn), of what the job reads: kind@7"),
    ],
)
def test_what_no_other_attempt_would_change_fails_a_job_at_once(
    bench: Bench, error: Exception, code: str, message: str
) -> None:
    (proxies_root(bench.home) / "kind" / "7").mkdir(parents=True)
    job = bench.order(ordered=replace(specification(), start="kind@7"))

    bench.worker(raising(error))._attempt()

    failed = bench.now(job)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", code)
    assert message in failed.error.message
    assert "secret" not in failed.error.message


def test_a_job_names_the_proxy_that_was_deleted_before_it_began(bench: Bench, trains: Trains) -> None:
    (proxies_root(bench.home) / "kind" / "7").mkdir(parents=True)
    job = bench.order(ordered=replace(specification(), start="kind@6"))

    bench.worker(trains)._attempt()

    failed = bench.now(job)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", "not_usable")
    assert "no proxy 'kind' with version or alias '6'" in failed.error.message


def test_what_may_pass_is_tried_again_and_then_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.service.job_report._FIRST_RETRY_SECONDS", 0.0)
    job = bench.order()
    worker = bench.worker(raising(RuntimeError("/secret")))

    for _ in range(MAX_FAILURES):
        assert bench.now(job).status == "queued"
        worker._attempt()

    failed = bench.now(job)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", "internal_error")
    assert "RuntimeError" in failed.error.message
    assert "secret" not in failed.error.message


def test_a_full_disk_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch, trains: Trains) -> None:
    monkeypatch.setattr("trainer.service.job_report._FIRST_RETRY_SECONDS", 0.0)
    job = bench.order()
    full = bench.worker(raising(OSError(errno.ENOSPC, "No space left on device")))

    for _ in range(MAX_FAILURES + 2):
        full._attempt()
    assert bench.now(job).status == "queued"

    bench.worker(trains)._attempt()
    assert bench.now(job).status == "succeeded"


def test_a_job_that_waits_for_its_retry_holds_nobody_up(bench: Bench, trains: Trains) -> None:
    broken = bench.order()
    bench.worker(raising(RuntimeError()))._attempt()
    good = bench.order()

    bench.worker(trains)._attempt()

    assert (bench.now(broken).status, bench.now(good).status) == ("queued", "succeeded")


def test_a_taken_folder_gives_the_job_back(bench: Bench) -> None:
    job = bench.order()

    bench.worker(raising(OutputTaken("another trainer works in it")))._attempt()

    assert (bench.now(job).status, bench.now(job).attempts) == ("queued", 0)


def test_a_file_that_is_deleted_before_training_fails_the_job(bench: Bench, trains: Trains) -> None:
    job = bench.order()
    bench.files.delete("me", job.training_file)

    bench.worker(trains)._attempt()

    error = bench.now(job).error
    assert error is not None
    assert (bench.now(job).status, error.code, error.param) == ("failed", "training_file_gone", "training_file")


def test_a_paused_job_keeps_nothing_of_a_file_that_is_deleted(bench: Bench, trains: Trains) -> None:
    job = bench.order()
    work = bench.source().next_work()
    assert work is not None
    trains(work.config, is_resumed=False, on_iteration=lambda *_: None, supervision=Supervision(must_stop=lambda: True))
    bench.jobs.pause("me", job.id)
    work.observer.on_leave()
    assert any(b"question 7" in path.read_bytes() for path in jobs_root(bench.home).rglob("*.jsonl"))
    bench.files.delete("me", job.training_file)

    assert bench.source().next_work() is None

    error = bench.now(job).error
    assert error is not None
    assert (bench.now(job).status, error.code) == ("failed", "training_file_gone")
    assert list(jobs_root(bench.home).iterdir()) == []


def test_a_job_that_is_under_way_ends_when_its_file_is_deleted(
    bench: Bench, trains: Trains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted during the second iteration's rollout."""
    monkeypatch.setattr("trainer.service.heartbeat._LOOK_SECONDS", 0.01)
    job = bench.order()
    generate = Engine.generate

    def delete(self: Any, requests: Any, before_step: Callable[[], None]) -> Any:
        if bench.steps(job) == [1]:
            bench.files.delete("me", job.training_file)
            bench.clerk.look()
            while True:
                before_step()
        return generate(self, requests, before_step)

    monkeypatch.setattr(Engine, "generate", delete)
    bench.worker(trains, bench.source(lease_seconds=3000))._attempt()

    assert (bench.now(job).status, bench.steps(job)) == ("failed", [1])
    assert not ProxyRegistry(proxies_root(bench.home)).names()


def test_only_the_folders_of_ended_jobs_are_deleted(bench: Bench) -> None:
    paused = bench.order()
    bench.jobs.pause("me", paused.id)
    for name in (paused.id, "ftjob-of-another-store"):
        (jobs_root(bench.home) / name).mkdir(parents=True)

    assert bench.source().next_work() is None

    assert len(list(jobs_root(bench.home).iterdir())) == 2


def test_two_trainers_may_delete_one_folder_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = bench.order()
    bench.jobs.cancel("me", ended.id)
    run_folder(bench.home, ended.id).mkdir(parents=True)
    meanwhile = [bench.source(), bench.source()]

    def remove(path: Path) -> None:
        """Others look just when the lock is gone, but not all of the rest."""
        for lock in path.glob(".*.lock"):
            lock.unlink()
        if meanwhile:
            meanwhile.pop()._remove_ended()
        shutil.rmtree(path)

    monkeypatch.setattr(disk, "remove", remove)

    assert bench.source().next_work() is None
    assert list(jobs_root(bench.home).iterdir()) == []


def test_an_alarm_is_told_once(bench: Bench, llm_folder: Path) -> None:
    same = {"type": "string_check", "name": "s", "input": "never", "reference": "said", "operation": "eq"}
    chosen = replace(specification(n_epochs=4, num_prompts="auto"), llm_source=str(llm_folder))
    method = Method(type="reinforcement", hyperparameters=chosen.method.hyperparameters, grader=parse_grader(same, "g"))
    job = bench.order(ordered=replace(chosen, method=method))
    pauses: list[int] = []

    def trained_in_two_goes(*arguments: Any, supervision: Supervision, **options: Any) -> TrainResult:
        def must_stop() -> bool:
            return not pauses and len(bench.steps(job)) >= 5

        result = train(*arguments, supervision=replace(supervision, must_stop=must_stop), **options)
        pauses.append(result.iterations)
        return result

    worker = bench.worker(trained_in_two_goes)
    worker._attempt()
    worker._attempt()

    assert (bench.now(job).status, pauses) == ("succeeded", [5, 12])
    told = [(each.level, each.message) for each in bench.events(job) if "same score" in each.message]
    assert told == [("warn", "no signal: all answers had the same score")]


def test_choices_of_a_job_become_settings_of_its_run(tmp_path: Path) -> None:
    chosen = specification(
        algorithm="rwr", num_prompts="auto", n_epochs=3, beta=2.0, p_t=0.02, penalty_weight=0.1, checkpoint_interval=5
    )

    config = job_config(chosen, "ftjob-1", 20, tmp_path, "http://judge/v1")

    assert config.judge is not None
    assert config.judge.url == "http://judge/v1"
    assert (config.algorithm, config.likelihood.beta, config.skam.p_t) == ("rwr", 2.0, 0.02)
    assert (config.num_prompts, config.shaping.penalty_weight, config.publish_every) == (60, 0.1, 5)
    assert (config.output, config.registry) == (tmp_path / "runs/ftjob-1/run", tmp_path / "proxies")
    assert (config.proxy, config.alias, config.seed, config.model) == ("wordy", "stable", 5, "tiny")


@pytest.mark.parametrize(
    ("hyperparameters", "batch", "group", "rate"),
    [
        ({"batch_size": "auto", "num_prompts": "auto"}, 20, 1, 3e-4),  # a file of 20 rows is one iteration
        ({"batch_size": 4096, "num_prompts": "auto"}, 20, 1, 3e-4),  # and no more is answered in it
        ({"batch_size": 4096, "num_prompts": "auto", "n_epochs": 3}, 60, 1, 3e-4),
        ({"batch_size": "auto"}, 12, 1, 3e-4),
        ({"batch_size": 7, "learning_rate_multiplier": 2}, 7, 1, 6e-4),
        ({"batch_size": "auto", "algorithm": "rloo"}, 12, 4, 1e-3),
        ({"batch_size": "auto", "responses_per_prompt": 8}, 6, 8, 3e-4),
    ],
)
def test_auto_depends_on_the_file_and_the_algorithm(
    tmp_path: Path, hyperparameters: dict[str, Any], batch: int, group: int, rate: float
) -> None:
    config = job_config(specification(**hyperparameters), "ftjob-1", 20, tmp_path, None)

    assert (config.rollout.prompts_per_iteration, config.rollout.responses_per_prompt) == (batch, group)
    assert config.algorithm_settings.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("kind", "rows", "algorithm"), [("dpo", pair_rows(), "dpo"), ("supervised", ANSWER_ROWS, "mle")]
)
def test_answers_that_are_given_become_a_proxy(
    bench: Bench, llm_folder: Path, kind: str, rows: str, algorithm: str
) -> None:
    job = bench.order(rows, given(kind, llm_folder, n_epochs=2, checkpoint_interval=3))

    bench.worker(train)._attempt()

    done = bench.now(job)
    assert (done.status, done.error, done.fine_tuned_model) == ("succeeded", None, "tiny:wordy")
    assert bench.steps(job) == [1, 2, 3, 4, 5, 6]  # 12 rows, 4 at a time, twice
    replayed = [
        each for shard in read_shards(jobs_root(bench.home) / job.id / "answers") for each in shard.trajectories
    ]
    assert done.trained_tokens == 2 * sum(int((each.ranks >= 0).sum()) for each in replayed)
    registry = ProxyRegistry(proxies_root(bench.home))
    assert registry.aliases("wordy").versions == {"stable": 2}
    card = registry.verify(registry.resolve("wordy")).card
    assert card["settings"]["algorithm"] == algorithm
    begun, learnt = (registry.verify(registry.resolve("wordy", number)).policy.state_dict() for number in (1, 2))
    assert any(not weights.equal(learnt[name]) for name, weights in begun.items() if name.startswith("actor."))


def test_a_supervised_job_learns_from_all_of_its_answers(bench: Bench, llm_folder: Path) -> None:
    job = bench.order(ANSWER_ROWS, given("supervised", llm_folder, n_epochs=1))

    bench.worker(train)._attempt()

    assert [row["update/effective_samples"] for row in bench.rows(job)] == [1.0, 1.0, 1.0]


def test_rows_that_do_not_fit_are_counted(bench: Bench, llm_folder: Path) -> None:
    job = bench.order(pair_rows(14, long=2), given("dpo", llm_folder, n_epochs=1))

    bench.worker(train)._attempt()

    assert bench.steps(job) == [1, 2, 3]
    told = [each for each in bench.messages(job) if each.startswith("12 of 14 rows (85.7%) can be learnt from")]
    assert len(told) == 1
    assert "; 2 have prompts above 104 tokens or answers that are alike within 24; " in told[0]


def test_rows_that_no_proxy_could_have_answered_so_are_not_counted(bench: Bench, llm_folder: Path) -> None:
    job = bench.order(pair_rows(15, long=1, unlikely=4), given("dpo", llm_folder, n_epochs=2))

    bench.worker(train)._attempt()

    assert bench.steps(job) == [1, 2, 3, 4, 5]  # 10 rows, 4 at a time, twice
    told = [each for each in bench.messages(job) if "can be learnt from" in each]
    assert len(told) == 1
    assert told[0].startswith("10 of 15 rows (66.7%) can be learnt from; 1 have prompts above 104 tokens")
    assert "; 4 have an answer without any token that the proxy may choose; " in told[0]


def test_too_few_rows_that_can_be_learnt_from_fail_a_job(bench: Bench, llm_folder: Path) -> None:
    job = bench.order(pair_rows(12, unlikely=3), given("dpo", llm_folder))

    bench.worker(train)._attempt()

    error = bench.now(job).error
    assert error is not None
    assert (bench.now(job).status, error.code, error.param) == ("failed", "invalid_training_file", "training_file")
    assert error.message.startswith("The training file: 9 of 12 rows (75.0%) can be learnt from; 3 have an answer ")
    assert error.message.endswith("; at least 10 are needed.")
    assert bench.steps(job) == []


def test_prompts_that_are_too_long_to_be_answered_are_told_and_not_planned_for(bench: Bench, llm_folder: Path) -> None:
    chosen = specification(batch_size="auto", num_prompts="auto", n_epochs=2)
    job = bench.order(prompt_rows(25, long=13), replace(chosen, llm_source=str(llm_folder)))

    bench.worker(train)._attempt()

    assert bench.now(job).status == "succeeded"
    assert [row["progress/prompts"] for row in bench.rows(job)] == [12, 24]
    told = [each for each in bench.messages(job) if "can be learnt from" in each]
    assert told == [
        "12 of 25 rows (48.0%) can be learnt from; 13 have prompts above 120 tokens: "
        "lines 13, 14, 15, 16, 17, 18, 19, 20, 21, 22 and 3 more"
    ]


@pytest.mark.parametrize(("most", "status"), [(27, "succeeded"), (26, "failed")])
def test_prompts_are_too_long_above_what_the_order_says(bench: Bench, trains: Trains, most: int, status: str) -> None:
    """Questions 0 to 9 have 27 tokens with what the template puts around them, the others one more."""
    job = bench.order(prompt_rows(19), specification(max_prompt_tokens=most))

    bench.worker(trains)._attempt()

    assert bench.now(job).status == status


def test_too_few_prompts_that_can_be_answered_fail_a_job(bench: Bench, trains: Trains) -> None:
    job = bench.order(prompt_rows(12, long=3))

    bench.worker(trains)._attempt()

    error = bench.now(job).error
    assert error is not None
    assert (bench.now(job).status, error.code, error.param) == ("failed", "invalid_training_file", "training_file")
    assert error.message == (
        "The training file: 9 of 12 rows (75.0%) can be learnt from; 3 have prompts above 120 tokens: "
        "lines 10, 11, 12; at least 10 are needed."
    )
    assert bench.steps(job) == []


def test_reading_a_long_file_is_left_when_the_job_is_taken_back(
    bench: Bench, trains: Trains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.service.heartbeat._LOOK_SECONDS", 0.01)
    job = bench.order()
    read = ChatTokenizer.apply_chat_template

    def slowly(*arguments: Any) -> Any:
        if bench.now(job).status == "running":
            bench.jobs.pause("me", job.id)
        time.sleep(0.05)
        return read(*arguments)

    monkeypatch.setattr(ChatTokenizer, "apply_chat_template", slowly)
    assert bench.source(lease_seconds=3000).next_work() is None
    assert (bench.now(job).status, (jobs_root(bench.home) / job.id / "rows.jsonl").exists()) == ("paused", False)

    monkeypatch.setattr(ChatTokenizer, "apply_chat_template", read)
    bench.jobs.resume("me", job.id)
    bench.worker(trains)._attempt()
    assert bench.now(job).status == "succeeded"


def test_a_file_in_which_nothing_fits_fails_its_job(bench: Bench, llm_folder: Path) -> None:
    job = bench.order(pair_rows(12, long=12), given("dpo", llm_folder))

    bench.worker(train)._attempt()

    error = bench.now(job).error
    assert error is not None
    assert (bench.now(job).status, error.code) == ("failed", "invalid_training_file")
    assert error.message == "The training file: no row has a prompt of at most 104 tokens."


def test_a_replay_that_is_left_goes_on_where_it_was(
    bench: Bench, llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused before the second of its three shards."""
    monkeypatch.setattr("trainer.service.job_replay._PROMPTS_PER_SHARD", 4)
    monkeypatch.setattr("trainer.service.heartbeat._LOOK_SECONDS", 0.01)
    job = bench.order(pair_rows(), given("dpo", llm_folder))
    answers = jobs_root(bench.home) / job.id / "answers"
    replays: list[int] = []

    def replaying(*arguments: Any) -> Any:
        replays.append(len(arguments[1]))
        if len(replays) == 1:
            bench.jobs.pause("me", job.id)
            time.sleep(0.2)
        return replay(*arguments)

    monkeypatch.setattr("trainer.offline.replayed.replay", replaying)
    bench.worker(train)._attempt()
    assert (bench.now(job).status, bench.steps(job)) == ("paused", [])
    assert [each.name for each in sorted(answers.glob("shard*"))] == ["shard-00000.safetensors"]

    bench.jobs.resume("me", job.id)
    bench.worker(train)._attempt()

    assert bench.now(job).status == "succeeded"
    assert replays == [8, 8, 8]


@pytest.mark.parametrize(
    ("kind", "hyperparameters", "batch", "epochs"),
    [
        ("dpo", {}, 20, 2),
        ("supervised", {"n_epochs": 5, "batch_size": 7}, 7, 5),
        ("dpo", {"batch_size": 4096}, 40, 2),  # what there is to learn from, and no more
    ],
)
def test_auto_of_given_answers_moves_greedy_decisions(
    tmp_path: Path, kind: str, hyperparameters: dict[str, Any], batch: int, epochs: int
) -> None:
    chosen = given(kind, tmp_path, **{"batch_size": "auto", "learning_rate_multiplier": 3} | hyperparameters)

    config = job_config(chosen, "ftjob-1", 20, tmp_path, None)

    assert (config.data, config.prompts, config.rewards) == (tmp_path / "runs/ftjob-1/answers", (), ())
    assert (config.rollout.prompts_per_iteration, config.offline.epochs) == (batch, epochs)
    assert config.offline.rejections_per_token == 0.2
    assert config.algorithm_settings.learning_rate == pytest.approx(3e-3)
    assert (config.dpo.per_position, config.dpo.beta) == (True, 5.0)
