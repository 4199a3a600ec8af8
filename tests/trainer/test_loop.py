import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from proxy_model.decision.config import FeatureMode, PolicyConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import DataError, InvalidParameter
from proxy_model.versions.registry import ProxyRegistry
from tests.trainer.runs import run, small_config
from tests.trainer.tiny_llm import tiny_llm
from tests.trainer.trajectories import trajectory_by_hand
from trainer.__main__ import main
from trainer.algorithm_config import PpoConfig
from trainer.batch import flatten
from trainer.config import RewardConfig, RolloutConfig
from trainer.config_file import read_config
from trainer.kinds import KindMoments
from trainer.live_table import COLUMNS, DECODED, LiveTable
from trainer.loop import train
from trainer.metrics import METRICS
from trainer.parts import planned_iterations
from trainer.rollout import derived_seed, prompt_indices
from trainer.targets import make_targets, terminal_rewards, yardstick


def read_rows(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def without_clocks(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in rows]


def assert_same_weights(first: torch.nn.Module, second: torch.nn.Module) -> None:
    other = second.state_dict()
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, other[name]), name


def test_a_killed_and_resumed_run_is_the_unbroken_run_bit_for_bit(tmp_path: Path) -> None:
    """Killed after iteration 3, saved after 2: iteration 3 is done again, its row in the log replaced."""
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    command = [sys.executable, "-m", "tests.trainer.runs", str(broken), "5", "3"]
    killed = subprocess.run(command, check=False, timeout=120)

    resumed = run(small_config(broken, iterations=5), is_resumed=True)
    whole = run(small_config(unbroken, iterations=5))

    assert killed.returncode == -signal.SIGKILL
    assert_same_weights(resumed.policy, whole.policy)
    assert without_clocks(read_rows(broken)) == without_clocks(read_rows(unbroken))
    assert [row["progress/iteration"] for row in read_rows(broken)] == [1, 2, 3, 4, 5]


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=2)
    finished = run(config)

    again = run(config, is_resumed=True)

    assert_same_weights(again.policy, finished.policy)
    assert again.published == ()
    assert ProxyRegistry(config.registry_folder).versions("tiny") == [1]


@pytest.mark.parametrize("features", ["prefix", "candidate", "both"])
def test_rewarding_length_makes_answers_longer(tmp_path: Path, features: FeatureMode) -> None:
    """The control of the whole loop: no reward model is needed to see that the proxy follows the reward."""
    run(small_config(tmp_path / "run", iterations=16, features=features))

    lengths = [row["answer/length"] for row in read_rows(tmp_path / "run")]
    assert sum(lengths[:2]) / 2 < 13
    assert sum(lengths[-4:]) / 4 > 21


def test_shuffled_rewards_teach_nothing(tmp_path: Path) -> None:
    """The same run; over seeds 5, 6 and 7 it ended at 8.5 to 9.5 tokens, with true rewards above 23."""
    shaping = RewardConfig(penalty_weight=0.0, shuffle=True)

    run(small_config(tmp_path / "run", iterations=16, shaping=shaping))

    lengths = [row["answer/length"] for row in read_rows(tmp_path / "run")]
    assert sum(lengths[-4:]) / 4 < 13


def test_an_iteration_logs_every_documented_metric_and_nothing_else(tmp_path: Path) -> None:
    result = run(small_config(tmp_path / "run", iterations=2))

    assert result.metrics.keys() == METRICS.keys() | {"reward/term/length"}
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert result.metrics["progress/prompts"] == 32


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    result = run(small_config(tmp_path / "run", iterations=2, tensorboard=True))

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    lengths = events.Scalars("answer/length")
    assert set(events.Tags()["scalars"]) == METRICS.keys() | {"reward/term/length"}
    assert [event.step for event in lengths] == [1, 2]
    assert lengths[-1].value == pytest.approx(result.metrics["answer/length"])


def test_the_first_batches_train_the_critic_alone(tmp_path: Path) -> None:
    ppo = PpoConfig(learning_rate=3e-3, critic_pretrain_iterations=1)
    pretrained = run(small_config(tmp_path / "one", iterations=1, ppo=ppo)).policy
    fresh = run(small_config(tmp_path / "other", iterations=1, ppo=replace(ppo, learning_rate=1e-12))).policy

    assert_same_weights(pretrained.actor, fresh.actor)
    assert not torch.equal(pretrained.critic.output.weight, fresh.critic.output.weight)


def test_the_learning_rate_falls_linearly(tmp_path: Path) -> None:
    run(small_config(tmp_path / "run", iterations=4))

    rates = [row["update/learning_rate"] for row in read_rows(tmp_path / "run")]
    assert rates == pytest.approx([3e-3, 2.25e-3, 1.5e-3, 0.75e-3])


def test_versions_are_published_on_the_way_and_the_last_one_is_the_result(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=5, publish_every=2, registry=tmp_path / "proxies")

    result = run(config)

    registry = ProxyRegistry(tmp_path / "proxies")
    assert [ref.version for ref in result.published] == [1, 2, 3]
    assert registry.versions("tiny") == [1, 2, 3]
    last = registry.verify(registry.resolve("tiny"))
    assert_same_weights(last.policy, result.policy)
    assert last.card["iterations"] == 5
    assert last.skam == config.skam


def test_a_penalty_for_cut_answers_is_taken_off_their_reward_only(tmp_path: Path) -> None:
    plain = small_config(tmp_path / "plain", iterations=1)
    strict = small_config(tmp_path / "cut", iterations=1, shaping=RewardConfig(penalty_weight=0.0, cut_penalty=2.0))

    without, with_penalty = run(plain).metrics, run(strict).metrics

    difference = without["reward/normalised"] - with_penalty["reward/normalised"]
    assert difference == pytest.approx(2.0 * (1 - without["answer/eos_rate"]), abs=1e-6)
    assert with_penalty["reward/raw_mean"] == without["reward/raw_mean"]


@pytest.mark.parametrize(("clip", "expected"), [(0.0, 14.0), (10.0, 8.5)])
def test_scores_that_are_not_normalised_count_as_the_reward_gave_them(clip: float, expected: float) -> None:
    moments = KindMoments().updated(torch.tensor([7.0, 21.0]), torch.tensor([0, 0]))
    config = RewardConfig(normalise=False, clip=clip)

    terminal = terminal_rewards(
        torch.tensor([7.0, 21.0]), torch.tensor([0, 0]), torch.tensor([False, False]), moments, config
    )

    assert terminal.mean().item() == pytest.approx(expected)
    assert yardstick(moments, config).deviations(torch.tensor([0])) == [1.0]
    assert yardstick(moments, RewardConfig()).deviations(torch.tensor([0])) == [7.0]


def test_the_penalty_of_a_position_reaches_the_advantages_with_its_sign() -> None:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=2, hidden_size=4))
    batch = flatten([trajectory_by_hand(), trajectory_by_hand()], torch.arange(16.0).view(8, 2))
    shaping = RewardConfig(penalty_weight=0.2)

    targets = make_targets(batch, torch.tensor([3.0, -1.0]), policy, shaping, PpoConfig())

    assert targets.returns.tolist() == pytest.approx([3.0 - 0.15, 3.0, -1.0 - 0.15, -1.0], abs=1e-6)
    assert targets.old_values.tolist() == pytest.approx(policy.values(batch.hidden).tolist())
    assert batch.per_answer(targets.penalties).tolist() == pytest.approx([0.15, 0.15])


def test_an_output_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(InvalidParameter, match="output"):
        run(small_config(tmp_path, iterations=1))

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["", "My_Proxy", "base", "a/b"])
def test_a_name_that_nothing_can_be_published_under_is_refused_before_the_run(name: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        small_config(Path("run"), iterations=1, proxy=name)

    assert caught.value.name == "proxy"


def test_a_registry_that_cannot_be_written_to_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        run(small_config(tmp_path / "run", iterations=1, registry=tmp_path / "file" / "proxies"))

    assert not (tmp_path / "run").exists()


def test_resuming_what_was_never_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="to resume"):
        run(small_config(tmp_path / "nothing", iterations=1), is_resumed=True)


def test_broken_prompts_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": [{"role": "user", "content": "hello"}]}\n{"prompt": 3}\n')
    config = small_config(tmp_path / "run", iterations=1, prompts=(prompts,), model="there is no such model")

    with pytest.raises(DataError, match="line 2"):
        train(config)

    assert not (tmp_path / "run").exists()


def test_prompts_that_are_all_too_long_are_refused(tmp_path: Path) -> None:
    rollout = RolloutConfig(max_prompt_tokens=3)

    with pytest.raises(DataError, match="at most 3 tokens"):
        run(small_config(tmp_path / "run", iterations=1, rollout=rollout))


def test_answers_that_leave_no_room_for_a_prompt_are_refused_by_their_setting(tmp_path: Path) -> None:
    max_context = tiny_llm().max_context

    with pytest.raises(InvalidParameter, match=f"less than the {max_context} tokens") as caught:
        run(small_config(tmp_path / "run", iterations=1, rollout=RolloutConfig(max_tokens=max_context)))

    assert caught.value.name == "rollout.max_tokens"


def test_each_epoch_answers_every_prompt_once_in_its_own_order() -> None:
    seen = [index for iteration in range(10) for index in prompt_indices([0] * 15, 6, iteration, seed=3)]

    epochs = [seen[start : start + 15] for start in range(0, 60, 15)]
    assert all(sorted(epoch) == list(range(15)) for epoch in epochs)
    assert epochs[0] != epochs[1] != sorted(epochs[1])
    assert prompt_indices([0] * 15, 6, 0, seed=4) != prompt_indices([0] * 15, 6, 0, seed=3)


def test_seeds_differ_by_every_part_and_fit_the_engine() -> None:
    seeds = [derived_seed(1, 2, 3), derived_seed(1, 3, 2), derived_seed(12, 3), derived_seed(1, 23), derived_seed(1, 2)]

    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert derived_seed(1, 2, 3) == seeds[0]


@pytest.mark.parametrize(("num_prompts", "expected"), [(0, 7), (48, 3), (49, 4)])
def test_iterations_cover_the_planned_prompts(num_prompts: int, expected: int) -> None:
    config = small_config(Path("run"), iterations=1, num_prompts=num_prompts)

    assert planned_iterations(config, 100) == expected


def test_the_table_shows_iterations_and_alarms(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=160)
    row = run(small_config(tmp_path / "run", iterations=1)).metrics

    with LiveTable(console) as table:
        table.show(row, ["drift: too far"])

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "rej/tok" in shown
    assert f"{row['reward/raw_mean']:.3f}" in shown
    assert "warning: drift: too far" in shown
    assert "tok/s" in shown
    assert "learnt/s" not in shown


@pytest.mark.parametrize(("width", "whole"), [(40, 6), (80, 12), (160, 15)])
def test_a_narrow_terminal_loses_columns_and_no_digits(width: int, whole: int) -> None:
    """Of the fifteen columns as many as fit, from the left."""
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    row = dict.fromkeys(METRICS, 0.0) | {"reward/raw_mean": -12.345, "speed/tokens_per_second": 120.0}

    with LiveTable(console) as table:
        table.show(row, [])

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "-12.345" in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert len([name for name in [*COLUMNS, *DECODED] if f"{name} " in shown or f"{name}\n" in shown]) == whole


def test_without_a_terminal_an_iteration_is_one_line() -> None:
    console = Console(file=StringIO(), width=40)
    row = dict.fromkeys(METRICS, 0.0) | {"reward/raw_mean": -12.345}

    with LiveTable(console) as table:
        table.show(row | {"progress/iteration": 1.0}, [])
        table.show(row | {"progress/iteration": 2.0}, ["drift: too far"])

    first, second, warning = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.startswith("iter 1  prompts 0  reward -12.345  ")
    assert second.startswith("iter 2  ")
    assert warning == "warning: drift: too far"


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'output = "a"\nprompts = "p"\nproxy = "x"\nrewards = [{type = "trained", folder = "r"}]\nseed = -1\n'
    )

    assert main([str(path)]) == 2
    assert "seed must be in [0, 2^31), got -1" in capsys.readouterr().err


def test_settings_come_from_a_file_and_overrides_win(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'output = "a"\nprompts = "p"\nproxy = "x"\n[[rewards]]\ntype = "json"\n[ppo]\nepochs = 2\nlearning_rate = 1\n'
    )

    config = read_config(path, seed=9, output=Path("b"))

    assert (config.output, config.seed, config.ppo.epochs, config.ppo.learning_rate) == (Path("b"), 9, 2, 1.0)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("sede = 3", "sede"),  # unknown
        ("[ppo]\nepoch = 3", "ppo.epoch"),  # unknown, nested
        ("[ppo]\nepochs = 2.5", "ppo.epochs"),  # wrong type
        ("seed = true", "seed"),  # a bool is no number
        ("[ppo]\nepochs = 0", "epochs"),  # out of range
        ("[shaping]\npenalty = 'gpa'", "penalty"),  # no such choice
        ("ppo = 3", "ppo"),  # not a table
        ("[ppo", "config"),  # not TOML
    ],
)
def test_a_settings_file_that_cannot_be_meant_is_refused(tmp_path: Path, lines: str, named: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        f'output = "a"\nprompts = "p"\nproxy = "x"\nrewards = [{{type = "trained", folder = "r"}}]\n{lines}\n'
    )

    with pytest.raises(InvalidParameter) as caught:
        read_config(path)

    assert caught.value.name == named


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"output": "a", "prompts": "p", "proxy": "x"}')

    with pytest.raises(InvalidParameter, match="rewards must be given"):
        read_config(path)
