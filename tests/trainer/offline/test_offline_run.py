"""Runs that learn from a folder of answers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import Trajectory
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.errors import BadCheckpoint, DataError, FingerprintMismatch, InvalidParameter
from proxy_model.versions.checkpoint import read_checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.trainer.offline.answers import make_answers
from tests.trainer.runs import small_config
from tests.trainer.tiny_llm import tiny_llm
from tests.trainer.trajectories import trajectory_by_hand
from trainer.algorithm_config import AlgorithmName, Baseline, DtConfig, LikelihoodConfig, OfflineConfig
from trainer.batch import flatten
from trainer.config import ProxyShape, RewardConfig, RolloutConfig, TrainConfig
from trainer.live_table import LiveTable
from trainer.loop import TrainResult, train
from trainer.metrics import METRICS
from trainer.offline.calibration import first_choice_logits
from trainer.offline.data import OfflineData
from trainer.offline.folder import DataDescription, ScoredAnswers
from trainer.offline.returns import data_returns
from trainer.parts import Parts, new_policy
from trainer.rewards.terms import trained_term
from trainer.run import Run


def offline_config(output: Path, folder: Path, **changes: object) -> TrainConfig:
    values: dict[str, Any] = {
        "prompts": (),
        "rewards": (),
        "data": folder,
        "algorithm": "rwr",
        "num_prompts": 0,
        "save_every": 1,
        "rollout": RolloutConfig(prompts_per_iteration=6),
        "offline": OfflineConfig(epochs=3),
        "likelihood": LikelihoodConfig(learning_rate=1e-2, minibatches=2),
        "dt": DtConfig(learning_rate=1e-2, minibatches=2),
    }
    return small_config(output, iterations=1, **{**values, **changes})


def learn(config: TrainConfig, *, is_resumed: bool = False, kill_after: int = 0) -> TrainResult:
    """A run; with `kill_after` the process dies after that many iterations."""
    llm = tiny_llm()

    def die(row: object, warnings: list[str]) -> None:
        if len((config.output / "metrics.jsonl").read_text().splitlines()) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    parts = Parts(llm=llm, data=OfflineData.read(config, llm))
    return train(config, parts=parts, is_resumed=is_resumed, on_iteration=die)


@pytest.mark.parametrize("algorithm", ["mle", "rwr", "awr", "dt"])
def test_a_folder_of_answers_teaches_what_its_scores_reward(tmp_path: Path, algorithm: AlgorithmName) -> None:
    """Reward is length, so an end token that is offered must become less acceptable than the other tokens."""
    make_answers(tmp_path / "data", num_prompts=40)
    config = offline_config(tmp_path / "run", tmp_path / "data", algorithm=algorithm)

    result = learn(config)

    llm = tiny_llm()
    answers = OfflineData.read(config, llm).trajectories
    logits = first_choice_logits(result.policy, answers, llm.embedding)
    firsts = torch.cat([each.candidates[each.is_free[:, 0], 0] for each in answers])
    is_end = firsts == 256
    assert int(is_end.sum()) > 5
    assert logits[is_end].mean() < logits[~is_end].mean() - 0.1
    assert result.iterations == 20  # three epochs of 40 prompts, 6 at a time
    assert METRICS.keys() == result.metrics.keys()


def test_a_run_that_decodes_nothing_claims_no_tokens_a_second(tmp_path: Path) -> None:
    make_answers(tmp_path / "data", num_prompts=6)
    config = offline_config(tmp_path / "run", tmp_path / "data", offline=OfflineConfig(epochs=1))
    console = Console(file=StringIO(), width=160)

    row = learn(config).metrics
    with LiveTable(console) as table:
        table.show(row, [])

    seconds = sum(row[f"speed/{name}_seconds"] for name in ("rollout", "score", "update"))
    assert row["speed/tokens_per_second"] == 0
    assert row["speed/learnt_tokens_per_second"] == pytest.approx(row["answer/length"] * 18 / seconds, rel=1e-3)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "learnt/s" in shown
    assert "tok/s" not in shown


def test_a_killed_and_resumed_offline_run_is_the_unbroken_run(tmp_path: Path) -> None:
    make_answers(tmp_path / "data")
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-m", "tests.trainer.offline.test_offline_run", str(broken), str(tmp_path / "data")]
    killed = subprocess.run(command, check=False, timeout=120)

    resumed = learn(offline_config(broken, tmp_path / "data"), is_resumed=True)
    unbroken = learn(offline_config(whole, tmp_path / "data"))

    assert killed.returncode == -signal.SIGKILL
    for name, weights in resumed.policy.state_dict().items():
        assert torch.equal(weights, unbroken.policy.state_dict()[name]), name
    rows = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) for folder in (broken, whole)]
    kept = [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in rows]
    assert kept[0] == kept[1]


def test_a_run_of_other_settings_than_its_answers_is_refused(tmp_path: Path) -> None:
    make_answers(tmp_path / "data", num_prompts=5)

    for changes, named in (
        ({"skam": SkamConfig()}, "skam"),
        ({"shape": ProxyShape(features="both", hidden_size=16)}, "shape.features"),
    ):
        with pytest.raises(InvalidParameter) as caught:
            OfflineData.read(offline_config(tmp_path / "run", tmp_path / "data", **changes), tiny_llm())
        assert caught.value.name == named


def test_answers_of_another_llm_are_refused(tmp_path: Path) -> None:
    make_answers(tmp_path / "data", num_prompts=5)
    other = tiny_llm()
    other.fingerprint = {**other.fingerprint, "chat_template": "other"}

    with pytest.raises(FingerprintMismatch, match="chat_template"):
        OfflineData.read(offline_config(tmp_path / "run", tmp_path / "data"), other)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompts": (Path("prompts.jsonl"),)}, "prompts"),
        ({"rewards": (trained_term(Path("reward")),)}, "rewards"),
        ({"algorithm": "ppo"}, "algorithm"),
        ({"algorithm": "rloo"}, "algorithm"),
        ({"shaping": RewardConfig(potential=True)}, "shaping.potential"),
        ({"data": None}, "prompts"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        offline_config(Path("run"), Path("data"), **changes)

    assert caught.value.name == named


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"rejections_per_token": 1.0}, {"rejections_per_token": -0.1}])
def test_offline_settings_have_their_ranges(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(changes))):
        OfflineConfig(**changes)  # type: ignore[arg-type]


def _answers(ranks: list[list[int]], group_size: int) -> ScoredAnswers:
    trajectories = [replace(trajectory_by_hand(), ranks=torch.tensor(each)) for each in ranks]
    llm = tiny_llm()
    description = DataDescription(
        kind="rollouts",
        settings={},
        fingerprint=dict(llm.fingerprint),
        skam=SkamConfig(),
        features="prefix",
        group_size=group_size,
    )
    kinds = torch.zeros(len(ranks), dtype=torch.long)
    return ScoredAnswers(description, trajectories, torch.arange(float(len(ranks))), kinds)


def test_inadmissible_positions_are_dropped_and_counted() -> None:
    data = OfflineData.of(_answers([[1, 0], [-1, 0], [1, -1], [1, 1]], group_size=2))

    assert [each.num_positions for each in data.trajectories] == [2, 1, 1, 2]
    assert data.inadmissible_share == pytest.approx(2 / 8)


def test_a_prompt_with_an_answer_that_is_all_inadmissible_is_left_out() -> None:
    data = OfflineData.of(_answers([[1, 0], [-1, -1], [1, -1], [1, 1]], group_size=2))

    assert data.num_prompts == 1
    assert data.scores.tolist() == [2.0, 3.0]


def test_pairs_are_the_best_and_the_worst_answer_to_each_prompt_without_ties() -> None:
    answers = _answers([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [1, 0]], group_size=3)
    scores = torch.tensor([0.5, 2.0, -1.0, 3.0, 3.0, 3.0])

    pairs = OfflineData.of(replace(answers, scores=scores)).paired()

    assert pairs.scores.tolist() == [2.0, -1.0]
    assert [each.ranks.tolist() for each in pairs.trajectories] == [[0, 0], [1, 1]]
    assert pairs.group_size == 2


def test_answers_that_are_all_inadmissible_teach_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _answers([[-1, -1], [-1, -1]], group_size=1)
    monkeypatch.setattr("trainer.offline.data.read_data", lambda folder, fingerprint: found)

    with pytest.raises(DataError, match="could have given"):
        OfflineData.read(offline_config(Path("run"), Path("data"), skam=SkamConfig()), tiny_llm())


def test_a_run_without_its_reference_is_not_resumed(tmp_path: Path) -> None:
    make_answers(tmp_path / "data", num_prompts=5)
    config = offline_config(tmp_path / "run", tmp_path / "data")
    learn(config)
    (config.output / "reference.safetensors").write_bytes(b"{}")

    with pytest.raises(BadCheckpoint, match="began with"):
        learn(config, is_resumed=True)


@pytest.mark.parametrize(("algorithm", "wanted"), [("mle", 0.7), ("dt", 0.2)])  # rates that so small an LLM can have
def test_the_published_version_rejects_as_often_as_was_asked_for(
    tmp_path: Path, algorithm: AlgorithmName, wanted: float
) -> None:
    """Asked as a server asks it: greedily, and under `dt` at the default return."""
    make_answers(tmp_path / "data", num_prompts=20)
    config = offline_config(
        tmp_path / "run",
        tmp_path / "data",
        offline=OfflineConfig(epochs=1, rejections_per_token=wanted),
        algorithm=algorithm,
    )

    result = learn(config)

    llm = tiny_llm()
    registry = ProxyRegistry(config.registry_folder)
    served = read_checkpoint(registry.path(result.published[-1]), llm.fingerprint).policy
    answers: tuple[Trajectory, ...] = OfflineData.read(config, llm).trajectories
    learnt, shifted = (first_choice_logits(each, answers, llm.embedding) for each in (result.policy, served))
    assert rejections_per_token(served, config, answers) == pytest.approx(wanted, rel=0.15)
    assert rejections_per_token(result.policy, config, answers) < wanted / 2
    assert float((learnt - shifted).std()) < 1e-5  # their order stays


def rejections_per_token(policy: ProxyPolicy, config: TrainConfig, answers: Sequence[Trajectory]) -> float:
    """Of greedy answers to every prompt of the folder."""
    engine = Engine(tiny_llm(), EngineConfig(max_running=16, max_context=128, max_candidates=8))
    proxy = ProxyRef(name="served", version=1)
    engine.load_proxy(proxy, policy, config.skam)
    params = SamplingParams(max_tokens=48, target_return=policy.config.target_return(None))
    prompts = sorted({each.prompt_token_ids for each in answers})
    usages = [
        each.usage
        for each in engine.generate(
            GenerationRequest(id=str(number), prompt_token_ids=prompt, params=params, proxy=proxy)
            for number, prompt in enumerate(prompts)
        )
    ]
    return sum(each.rejected for each in usages) / sum(each.completion_tokens for each in usages)


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_returns_of_a_folder_are_those_of_its_batches(tmp_path: Path, baseline: Baseline) -> None:
    make_answers(tmp_path / "data", num_prompts=7)
    shaping = RewardConfig(baseline=baseline, penalty_weight=0.03, cut_penalty=0.5)
    config = offline_config(tmp_path / "run", tmp_path / "data", shaping=shaping)
    llm = tiny_llm()
    data, policy = OfflineData.read(config, llm), new_policy(config, llm)

    whole = data_returns(config, data, policy, llm.embedding)

    rollout = data.rollout([4, 2])
    assert rollout.scores is not None
    batch = flatten(rollout.trajectories, llm.embedding)
    terminal = (rollout.scores - data.scores.mean()) / data.scores.std(correction=0) - 0.5 * rollout.is_cut
    returns = (terminal - 0.03 * batch.per_answer(batch.gaps)).view(2, 3)
    if baseline == "leave_one_out":
        returns = 1.5 * (returns - returns.mean(1, keepdim=True))
    assert whole.view(7, 3)[[4, 2]].flatten().tolist() == pytest.approx(returns.flatten().tolist(), abs=1e-4)
    assert rollout.is_cut.any()


def test_an_offline_run_measures_returns_over_the_whole_folder(tmp_path: Path) -> None:
    make_answers(tmp_path / "data")
    config = offline_config(tmp_path / "run", tmp_path / "data", shaping=RewardConfig(penalty_weight=0.03))
    llm = tiny_llm()
    run = Run.start(config, Parts(llm=llm, data=OfflineData.read(config, llm)), is_resumed=False)

    begun = run.progress.return_moments
    run.iterate()

    assert begun.count == 54  # 18 prompts with three answers each
    assert run.progress.return_moments == begun


if __name__ == "__main__":
    learn(offline_config(Path(sys.argv[1]), Path(sys.argv[2])), kill_after=5)
