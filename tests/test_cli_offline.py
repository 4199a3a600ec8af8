"""The command line's way from prompts or pairs to a proxy that learnt offline."""

import json
from pathlib import Path

import pytest

from cli.main import main
from cli.run_settings import make_config
from proxy_model.decision.config import SkamConfig
from proxy_model.llm.frozen_llm import load_llm
from proxy_model.versions.registry import ProxyRegistry
from tests.trainer.preference_data import write_pairs
from tests.trainer.tiny_llm import write_tiny_llm
from trainer.offline.folder import read_data

METHODS = Path(__file__).parents[1] / "demo" / "methods"

SETTINGS = """
rewards = [{ type = "length", name = "long", per_token = 0.125 }]
proxy = "answers"
[rollout]
prompts_per_iteration = 4
max_tokens = 12
[skam]
p_t = 0.001
max_candidates = 8
"""


@pytest.fixture
def llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a tiny LLM, in a home and a working folder of the test's own."""
    monkeypatch.setenv("PROXY_RLHF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    return str(write_tiny_llm(tmp_path / "llm"))


def write_prompts(path: Path, number: int) -> None:
    turns = [[{"role": "user", "content": f"Question {each}?"}] for each in range(number)]
    path.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in turns))


def test_answers_are_gathered_and_learnt_from(llm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 9)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    gather = ["rollouts", "--output", "answers", "--settings", "settings.toml", "--prompts", "prompts.jsonl"]
    gather += ["--model", llm, "--num-prompts", "6", "--answers", "3", "--seed", "4"]
    learn = ["train", "--output", "run", "--proxy", "offline", "--model", llm, "--set", "data=answers"]
    learn += ["--set", "algorithm=mle", "--set", "skam.p_t=0.001", "--set", "skam.max_candidates=8"]

    assert main(gather) == 0
    summary = capsys.readouterr().out
    assert main([*learn, "--set", "offline.epochs=1"]) == 0

    found = read_data(tmp_path / "answers", load_llm(llm).fingerprint)
    assert "answers: 18\n" in summary
    assert len(found.trajectories) == 18
    assert found.description.group_size == 3
    assert found.description.settings["seed"] == 4
    assert len(set(found.scores.tolist())) > 5, "answers of many lengths must have many scores"
    assert ProxyRegistry(tmp_path / "home" / "proxies").versions("offline") == [1]


def test_pairs_are_replayed_and_learnt_from(llm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 5)
    skam = SkamConfig(p_t=0.002, top_p=0.99, temperature=0.75, max_candidates=8)
    turned = ["--p-t", "0.002", "--top-p", "0.99", "--temperature", "0.75", "--max-candidates", "8"]
    replayed = ["replay", "--output", "pairs", "--pairs", "pairs.jsonl", "--model", llm, "--num-pairs", "4"]

    assert main([*replayed, *turned, "--max-tokens", "6", "--max-prompt-tokens", "90"]) == 0

    summary = capsys.readouterr().out
    found = read_data(tmp_path / "pairs", load_llm(llm).fingerprint)
    assert "answers: 8\n" in summary
    assert "inadmissible share: " in summary
    assert (found.description.kind, found.description.skam) == ("pairs", skam)
    assert max(each.num_positions for each in found.trajectories) == 6


def test_answers_of_other_settings_are_not_gone_on_with(
    llm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 4)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    gather = ["rollouts", "--output", "answers", "--settings", "settings.toml", "--prompts", "prompts.jsonl"]
    assert main([*gather, "--model", llm]) == 0
    capsys.readouterr()

    assert main([*gather, "--model", llm, "--seed", "1"]) == 2

    assert "seed must be" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(METHODS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_settings_are_whole_and_fit_each_other(path: Path) -> None:
    """What the README's commands read: each method learns from answers that were made with its SKAM settings."""
    answers = make_config(METHODS / "answers.toml", {"output": Path("answers")}, [])

    config = make_config(path, {"output": Path("run")}, [])

    assert (config.skam, config.shape) == (answers.skam, answers.shape)
    assert path == METHODS / "answers.toml" or (config.algorithm, config.data) == (path.stem, Path("runs/answers"))
